"""What reading a page costs, in a process of its own: seconds and peak memory.

`python page_peak.py` runs the page reader on each of PAGES, from the body that
was fetched to the question its engine is asked, and prints a JSON object of
[seconds, growth in MiB].
"""

import asyncio
import ctypes
import io
import json
import pathlib
import time

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import fetching, passages, web_search


def _all_different():
  # Written and not joined: a list of words would leave freed memory behind, in
  # which what is measured would have room.
  page = io.StringIO()
  for number in range(700_000):
    page.write(f"{number} ")
  return page.getvalue()


# Functions, so that only one page is in memory at a time.
PAGES = {
  "bold": lambda: "<b>" * 500_000,
  "nav": lambda: "<nav>" * 500_000,
  "less": lambda: "<" * 5_000_000,
  "open": lambda: "<a" * 2_500_000,
  "close": lambda: "</" * 2_500_000,
  "comment": lambda: "<!--" * 1_250_000,
  "scripts": lambda: "<script>" * 600_000,
  "script end": lambda: "<script>" + "</b>" * 500_000,
  "script": lambda: f"<script>{'x ' * 2_499_990}</script>yes",
  "ampersand": lambda: "&" * 5_000_000,
  "references": lambda: "&amp;" * 10**6,
  "wide references": lambda: "&zwnj;" * 800_000,
  "paragraphs": lambda: "<p>" * 400_000,
  "one word each": lambda: "<p>ab" * 500_000,
  "one letter": lambda: "a " * 2_500_000,
  "two letters": lambda: "ab " * 1_666_666,
  "three letters": lambda: "abc " * 1_250_000,
  "all different": _all_different,
  "one word": lambda: "a" * 5_000_000,
  "chinese": lambda: "\u4e2d" * 1_666_666,
  "emoji": lambda: ("word " * 99 + "\U0001f40d") * 10_000,
  "blank": lambda: " \n" * 2_500_000,
}
# Those read as plain text too, where nothing is left out.
PLAIN = ("three letters", "all different", "chinese", "emoji")
_QUERY = "ab abc word 1 \u4e2d"


class _Fetcher(fetching.Fetcher):
  def __init__(self, body, kind):
    super().__init__(None)
    self._body, self._kind = body, kind

  async def get(self, url, **unused):
    return fetching.Response(
      url=url,
      status=200,
      headers={"content-type": f"{self._kind}; charset=utf-8"},
      body=self._body,
      cut=False,
    )


class _Engine:
  async def generate(self, messages, sampling, context):
    return engine_lib.Completion(
      text="yes", finish_reason=engine_lib.FinishReason.STOP
    )


def _read(body, kind):
  tool = web_search.WebSearch(
    _Engine(),
    engine_lib.SamplingParams(),
    _Fetcher(body, kind),
    passages.LexicalRanker(),
  )
  context = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)
  arguments = {"query": _QUERY, "url": "http://example.org/"}
  asyncio.run(tool.execute(arguments, context))


def memory_kib(name):
  """A line of this process's status, such as "VmRSS"."""
  # Not ru_maxrss: a child inherits that from the process it was forked from.
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(name):
      return int(line.split()[1])
  raise LookupError(name)


def measure(page, kind):
  """(seconds of CPU, MiB with the body) that reading one page took at most."""
  body = page().encode()[: fetching.MAX_BYTES]
  ctypes.CDLL(None).malloc_trim(0)  # nothing finds room in what was freed
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now
  before, started_s = memory_kib("VmRSS"), time.process_time()
  _read(body, kind)
  seconds = time.process_time() - started_s
  grown = (memory_kib("VmHWM") - before) / 1024
  return seconds, grown + len(body) / 2**20


def main():
  _read(b"<p>warm &amp; up", "text/html")
  found = {
    f"{name}, {kind}": measure(page, kind)
    for name, page in PAGES.items()
    for kind in ("text/html", "text/plain")
    if kind == "text/html" or name in PLAIN
  }
  print(json.dumps(found))


if __name__ == "__main__":
  main()
