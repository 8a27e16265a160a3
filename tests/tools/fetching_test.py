"""Fetching: what comes back, and that no answer can hurt."""

import asyncio
import ctypes
import functools
import gzip
import inspect
import os
import pathlib
import time
import zlib

import local_server
import page_peak
import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.testing import byte_tokenizer, scripted_engine
from agentflow_jax.tools import fetching, registry, url_guard, web_search

MIB = 1 << 20


def _fetch(answer, **options):
  with local_server.serving(answer) as server:
    guard = url_guard.Guard([server.authority])
    return asyncio.run(fetching.Fetcher(guard, **options).get(server.url))


def test_a_page_comes_back_whole():
  with local_server.serving(
    lambda h: h.send(
      "caf\u00e9".encode("latin-1"), 200, "Text/HTML; charset=latin-1"
    )
  ) as server:
    fetcher = fetching.Fetcher(url_guard.Guard([server.authority]))
    got = asyncio.run(fetcher.get(server.url + "/a", query={"q": "x y&z"}))
  assert (got.status, got.cut, got.text) == (200, False, "caf\u00e9")
  assert got.content_type == "text/html"
  assert server.requests == [("GET", "/a?q=x+y%26z", b"")]
  assert server.seen[0]["host"] == server.authority
  assert not {"cookie", "authorization"} & {k.lower() for k in server.seen[0]}


def test_json_is_posted_and_read():
  with local_server.serving(lambda h: h.send_json({"a": [1]}, 201)) as server:
    got = asyncio.run(fetching.Fetcher(None).post_json(server.url, {"b": 2}))
    assert (got.status, got.json()) == (201, {"a": [1]})
    assert server.requests == [("POST", "/", b'{"b": 2}')]


@pytest.mark.parametrize(
  "body", [b"", b"{", b"[" * 10**5, b"\xff", b'{"a": 1} x']
)
def test_what_is_not_json_is_a_fetch_error(body):
  got = _fetch(lambda h: h.send(body))
  with pytest.raises(fetching.FetchError, match="not JSON"):
    got.json()


@pytest.mark.parametrize("charset", ["utf-99", "zip", "", "\u00fc", "idna",
                                     "punycode", "unicode_escape"])  # fmt: skip
def test_odd_charsets_are_read_as_utf8(charset):
  response = fetching.Response(
    url="", status=200, body="\u00e9\ud7ff".encode(), cut=False,
    headers={"content-type": f"text/html; charset={charset}"},
  )  # fmt: skip
  assert response.text == "\u00e9\ud7ff"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_pages_are_read(encoding):
  packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](b"hello")
  got = _fetch(lambda h: h.send(packed, content_encoding=encoding))
  assert got.body == b"hello"


@functools.cache
def _bomb(compress, size_mib=64):
  packer = zlib.compressobj(9, zlib.DEFLATED, 31 if compress == "gzip" else 15)
  zeros = bytes(MIB)
  packed = b"".join(packer.compress(zeros) for _ in range(size_mib))
  return packed + packer.flush()


def _endless_chunks(handler):
  handler.send_response(200)
  handler.send_header("transfer-encoding", "chunked")
  handler.end_headers()
  piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
  while True:
    handler.wfile.write(piece)


def _hundred_megabytes(handler):
  handler.send_response(200)
  handler.send_header("content-length", str(100 * MIB))
  handler.end_headers()
  for _ in range(100):
    handler.wfile.write(bytes(MIB))


def _drip(handler):
  handler.send_response(200)
  handler.send_header("content-length", "1000000")
  handler.end_headers()
  while True:
    handler.wfile.write(b"x")
    handler.wfile.flush()
    time.sleep(0.05)


def _header_drip(handler):
  while True:
    handler.wfile.write(b"X")
    handler.wfile.flush()
    time.sleep(0.05)


def _endless_headers(handler):
  handler.send_response_only(200)
  handler.flush_headers()
  while True:
    handler.wfile.write(b"x: " + b"y" * 1000 + b"\r\n")


@pytest.mark.parametrize(
  "answer",
  [
    _endless_chunks,
    _hundred_megabytes,
    lambda h: h.send(_bomb("gzip"), content_encoding="gzip"),
    lambda h: h.send(_bomb("deflate"), content_encoding="deflate"),
  ],
  ids=["chunks", "length", "gzip", "deflate"],
)
def test_endless_bodies_are_cut(answer):
  _bomb("gzip"), _bomb("deflate")
  _fetch(lambda h: h.send(b"warm"))
  got, grown_mib = _peak(lambda: _fetch(answer))
  assert got.cut
  assert len(got.body) == fetching.MAX_BYTES <= 5_000_000
  assert grown_mib < 50


def _peak(call):
  """What `call` returns, and the most memory it took on the way, in MiB."""
  ctypes.CDLL(None).malloc_trim(0)  # nothing finds room in what was freed
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now
  before = page_peak.memory_kib("VmRSS")
  result = call()
  return result, (page_peak.memory_kib("VmHWM") - before) / 1024


def test_the_peak_is_seen_though_it_is_freed():
  _, grown_mib = _peak(lambda: len(b"x" * (64 * MIB)))
  assert grown_mib > 60


def test_the_limits_are_those_that_are_promised():
  assert 0 < fetching.MAX_BYTES <= 5_000_000
  assert 0 < fetching.TIMEOUT_S <= 10
  keywords = inspect.signature(fetching.Fetcher).parameters
  assert keywords["max_bytes"].default == fetching.MAX_BYTES
  assert keywords["timeout_s"].default == fetching.TIMEOUT_S


def _read_page(server):
  """What the page reader, built as a run builds it, makes of a page."""
  toolbox = registry.build(
    config_lib.ToolsConfig(
      enabled=("web_search",), web_allowed_hosts=(server.authority,)
    ),
    registry.Resources(
      engine=scripted_engine.FakePolicyEngine(
        byte_tokenizer.ByteTokenizer(), lambda text, context: "yes"
      ),
      sampling=engine_lib.SamplingParams(),
      search_index_dir="",
    ),
  )
  (tool,) = toolbox.values()
  return asyncio.run(
    tool.execute(
      {"query": "q", "url": server.url},
      engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR),
    )
  )


def test_the_page_reader_has_the_promised_size(monkeypatch):
  seen = []

  async def page_text(response):
    seen.append(response)
    return "some text"

  monkeypatch.setattr(web_search, "page_text", page_text)
  with local_server.serving(_endless_chunks) as server:
    assert _read_page(server).ok
  (response,) = seen
  assert response.cut and len(response.body) <= 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize("answer", [_drip, _header_drip], ids=["body", "head"])
def test_the_page_reader_has_the_promised_time(answer):
  with local_server.serving(answer) as server:
    started_s = time.monotonic()
    result = _read_page(server)
  assert result.error == tool_lib.ToolErrorKind.NO_RESULT
  assert "no answer within" in result.output
  assert time.monotonic() - started_s < 15


@pytest.mark.parametrize(
  "answer", [_drip, _header_drip, lambda h: time.sleep(3)]
)
def test_slow_answers_end_at_the_limit(answer):
  started_s = time.monotonic()
  with pytest.raises(fetching.FetchError, match=r"within 0.5 s"):
    _fetch(answer, timeout_s=0.5)
  assert time.monotonic() - started_s < 10


def test_the_callers_deadline_counts_too():
  with local_server.serving(lambda h: time.sleep(1)) as server:
    fetcher = fetching.Fetcher(None, timeout_s=100)
    with pytest.raises(fetching.FetchError):
      asyncio.run(
        fetcher.get(server.url, deadline=deadline_lib.Deadline.after(0.2))
      )


def _garbage(handler):
  handler.wfile.write(b"\x00\x01\x02" * 100 + b"\r\n\r\n")


def _hang_up(handler):
  handler.send_response(200)
  handler.send_header("content-length", "100")
  handler.end_headers()
  handler.wfile.write(b"half")


@pytest.mark.parametrize(
  "answer",
  [
    _garbage,
    _hang_up,
    _endless_headers,
    lambda h: None,
    lambda h: h.send(b"", 302, location=h.path),
    lambda h: h.send(b"not gzip", content_encoding="gzip"),
    lambda h: h.send(b"x", content_encoding="br"),
    lambda h: h.send(b"x", content_encoding="gzip, gzip"),
  ],
)
def test_broken_answers_are_fetch_errors(answer):
  with pytest.raises(fetching.FetchError):
    _fetch(answer)


def test_nobody_there_is_a_fetch_error():
  with local_server.serving(lambda h: h.send(b"")) as server:
    url, authority = server.url, server.authority
  for guard in (None, url_guard.Guard([authority])):
    with pytest.raises(fetching.FetchError):
      asyncio.run(fetching.Fetcher(guard).get(url))


def test_a_configured_service_is_not_followed_elsewhere():
  with local_server.serving(lambda h: h.send(b"key!")) as other:
    got_by = lambda h: h.send(b"", 302, location=other.url)  # noqa: E731
    with local_server.serving(got_by) as server:
      got = asyncio.run(
        fetching.Fetcher(None).get(server.url, headers={"x-key": "secret"})
      )
    assert got.status == 302
    assert other.requests == []


def test_no_descriptor_outlives_a_call():
  with local_server.serving(_endless_chunks) as server:
    fetcher = fetching.Fetcher(None, max_bytes=1000)

    async def some():
      before = len(os.listdir("/proc/self/fd"))
      await asyncio.gather(*(fetcher.get(server.url) for _ in range(20)))
      task = asyncio.ensure_future(fetcher.get(server.url))
      await asyncio.sleep(0.05)
      task.cancel()
      await asyncio.gather(task, return_exceptions=True)
      for _ in range(100):  # the server's own ends close in its threads
        if len(os.listdir("/proc/self/fd")) <= before:
          return True
        await asyncio.sleep(0.05)
      return False

    assert asyncio.run(some())
