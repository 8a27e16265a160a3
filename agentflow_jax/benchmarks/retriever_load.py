"""Many clients at the retrieval server at once: how long one of them waits.

Starts launch/serve_retriever.py over an index made for it and asks, on one
kept connection per client. "paced" clients wait a second between queries, as
agents do; "rushed" ones do not, so that latency is throughput turned over.
No query comes twice: the server's cache does not help.
"""

import asyncio
import dataclasses
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import agentflow_jax
from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import corpora
from agentflow_jax.tasks.worldfacts import pages
from agentflow_jax.tools import bm25_index, search_services

_LAUNCHER = (
  pathlib.Path(agentflow_jax.__file__).parents[1]
  / "launch"
  / "serve_retriever.py"
)
_PACE_S = 1.0
_QUERY_WORDS = (5, 10)  # of a passage, behind its title
_STOP_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
  """Who asks, and how often."""

  clients: int = 256
  queries_each: int = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
  """What the clients saw: seconds per answer, and answers that were none."""

  seconds: Sequence[float]
  errors: int
  wall_s: float

  def quantile_ms(self, share: float) -> float:
    ordered = sorted(self.seconds)
    return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(passages: str = "", load: Load | None = None) -> dict[str, float]:
  """Builds an index, serves it, asks.

  Args:
    passages: a file or folder as launch/build_index.py reads them; empty for
      the pages of worldfacts.
    load: how much is asked.

  Raises:
    UserError: the passages are unusable, or the server does not start.
  """
  load = load or Load()
  if passages:
    found = list(corpora.passages(pathlib.Path(passages)))
  else:
    found = list(pages.passages())
  with tempfile.TemporaryDirectory() as folder:
    index_dir = pathlib.Path(folder) / "index"
    bm25_index.build(
      (bm25_index.Passage(id=i, title=t, text=x) for i, t, x in found),
      index_dir,
    )
    with Server(index_dir) as server:
      count = load.clients * load.queries_each
      wanted = _queries(found, 2 * count)
      ask(server, wanted[:count], load, 0.0)  # pages of the index are read
      paced = ask(server, wanted[:count], load, _PACE_S)
      rushed = ask(server, wanted[count:], load, 0.0)
  return {
    "retriever_passages": len(found),
    "retriever_p50_ms": paced.quantile_ms(0.5),
    "retriever_p99_ms": paced.quantile_ms(0.99),
    "retriever_rushed_p99_ms": rushed.quantile_ms(0.99),
    "retriever_queries_per_s": len(rushed.seconds) / rushed.wall_s,
    "retriever_errors": paced.errors + rushed.errors,
  }


class Server:
  """The server as a process, ended with the block."""

  def __init__(self, index_dir: pathlib.Path):
    """
    Raises:
      UserError: it did not start; with what it said.
    """
    self.token = secrets.token_hex(8)
    self._process = subprocess.Popen(
      [sys.executable, str(_LAUNCHER), "--port=0", f"--index={index_dir}"],
      env={**os.environ, search_services.RETRIEVER_TOKEN: self.token},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    assert self._process.stdout is not None
    first = self._process.stdout.readline()
    if not first.startswith("serving "):
      _, complaint = self._process.communicate(timeout=_STOP_S)
      raise errors.UserError(f"no retrieval server: {complaint.strip()}")
    self.port = int(first.rpartition(":")[2])

  def __enter__(self) -> "Server":
    return self

  def __exit__(self, *unused) -> None:
    self._process.terminate()
    self._process.communicate(timeout=_STOP_S)


def ask(
  server: Server, queries: Sequence[str], load: Load, pace_s: float
) -> Answers:
  """Every client asks its share of the queries, `pace_s` apart."""
  seconds: list[float] = []
  failed = 0

  async def client(number: int) -> None:
    nonlocal failed
    await asyncio.sleep(pace_s * number / load.clients)  # not in step
    each = load.queries_each
    mine = queries[number * each : (number + 1) * each]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
      for query in mine:
        started_s = time.perf_counter()
        answered = await _answered(reader, writer, query, server.token)
        failed += not answered
        seconds.append(time.perf_counter() - started_s)
        await asyncio.sleep(pace_s)
    except (OSError, EOFError):
      failed += 1
    finally:
      writer.close()

  async def everybody() -> None:
    await asyncio.gather(*(client(n) for n in range(load.clients)))

  started_s = time.perf_counter()
  asyncio.run(everybody())
  wall_s = time.perf_counter() - started_s
  missing = load.clients * load.queries_each - len(seconds)
  return Answers(seconds=seconds, errors=max(failed, missing), wall_s=wall_s)


async def _answered(reader, writer, query: str, token: str) -> bool:
  body = json.dumps(
    {"queries": [query], "topk": 3, "return_scores": True}
  ).encode()
  head = (
    "POST /retrieve HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n"
    f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
  )
  writer.write(head.encode() + body)
  head = await reader.readuntil(b"\r\n\r\n")
  length = int(head.lower().partition(b"content-length:")[2].split()[0])
  answer = await reader.readexactly(length)
  return head.startswith(b"HTTP/1.1 200") and b'"result"' in answer


def _queries(found: Sequence[tuple[str, str, str]], count: int) -> list[str]:
  """Different ones, spread over the passages."""
  first, last = _QUERY_WORDS
  queries = []
  for n in range(count):
    _, title, text = found[n * len(found) // count]
    words = text.split()[first:last]
    queries.append(f"{title} {' '.join(words)} {n}")
  return queries
