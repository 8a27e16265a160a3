"""Many clients at the retrieval server at once: how long one of them waits.

Starts launch/serve_retriever.py over an index made for it and asks, on one
kept connection per client. Clients never wait between queries, so that latency
is throughput turned over: medians of some rounds. "paced" ones wait a second,
as agents do. No query comes twice: the server's cache does not help.
"""

import asyncio
import dataclasses
import json
import os
import pathlib
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import agentflow_jax
from agentflow_jax.core import errors
from agentflow_jax.rollout import steady_heap
from agentflow_jax.tasks.datasets import corpora
from agentflow_jax.tasks.worldfacts import pages
from agentflow_jax.tools import bm25_index, search_services

_LAUNCHER = (
  pathlib.Path(agentflow_jax.__file__).parents[1]
  / "launch"
  / "serve_retriever.py"
)
_PACE_S = 1.0
_ROUNDS = 5
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
      wanted = _queries(found, count * (2 + _ROUNDS))
      fresh = iter(wanted[n : n + count] for n in range(0, len(wanted), count))
      ask(server, next(fresh), load, 0.0)  # pages of the index are read
      paced = ask(server, next(fresh), load, _PACE_S)
      rushed = [ask(server, queries, load, 0.0) for queries in fresh]
  p99_ms = [answers.quantile_ms(0.99) for answers in rushed]
  per_s = [len(answers.seconds) / answers.wall_s for answers in rushed]
  return {
    "retriever_passages": len(found),
    "retriever_rounds": _ROUNDS,
    "retriever_p50_ms": statistics.median(
      answers.quantile_ms(0.5) for answers in rushed
    ),
    "retriever_p99_ms": statistics.median(p99_ms),
    "retriever_p99_ms_min": min(p99_ms),
    "retriever_p99_ms_max": max(p99_ms),
    "retriever_queries_per_s": statistics.median(per_s),
    "retriever_paced_p99_ms": paced.quantile_ms(0.99),
    "retriever_errors": sum(answers.errors for answers in [paced, *rushed]),
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
  each = load.queries_each
  requests = [_request(query, server.token) for query in queries]
  clients = [
    _Client(requests[n * each : (n + 1) * each], pace_s)
    for n in range(load.clients)
  ]

  async def everybody() -> None:
    await asyncio.gather(
      # Not in step.
      *(
        client.run(server.port, pace_s * n / load.clients)
        for n, client in enumerate(clients)
      )
    )

  # A search for garbage would keep answers waiting that have come.
  with steady_heap.steady_heap():
    started_s = time.perf_counter()
    _run_loop(everybody())
    wall_s = time.perf_counter() - started_s
  answered = sum(client.answered for client in clients)
  return Answers(
    seconds=[second for client in clients for second in client.seconds],
    errors=load.clients * each - answered,
    wall_s=wall_s,
  )


def _run_loop(everybody: Coroutine[Any, Any, None]) -> None:
  """Runs clients on the event loop that keeps the server waiting least."""
  try:
    import uvloop
  except ImportError:
    asyncio.run(everybody)
  else:
    uvloop.run(everybody)


class _Client(asyncio.Protocol):
  """One connection: sends a request, times the answer, sends the next.

  A protocol, because a stream takes the processor for as long as the server
  does: it is the server that is to be measured.
  """

  def __init__(self, requests: Sequence[bytes], pace_s: float):
    self.seconds: list[float] = []
    self.answered = 0
    self._requests = iter(requests)
    self._pace_s = pace_s
    self._received = bytearray()
    self._sent_s = 0.0

  async def run(self, port: int, wait_s: float) -> None:
    """Asks everything; a broken connection leaves the rest unanswered."""
    await asyncio.sleep(wait_s)
    self._loop = asyncio.get_running_loop()
    self._done = self._loop.create_future()
    try:
      await self._loop.create_connection(lambda: self, "127.0.0.1", port)
    except OSError:
      return
    await self._done

  def connection_made(self, transport: asyncio.BaseTransport) -> None:
    self._transport: Any = transport
    self._next()

  def data_received(self, data: bytes) -> None:
    self._received += data
    head, end, body = self._received.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split()[:1]
    if not end or len(body) < int(length[0]):
      return
    self.seconds.append(time.perf_counter() - self._sent_s)
    self.answered += head.startswith(b"HTTP/1.1 200") and b'"result"' in body
    self._received.clear()
    if self._pace_s:
      self._loop.call_later(self._pace_s, self._next)
    else:
      self._next()

  def connection_lost(self, exc: Exception | None) -> None:
    if not self._done.done():
      self._done.set_result(None)

  def _next(self) -> None:
    request = next(self._requests, None)
    if request is None or self._transport.is_closing():
      self._transport.close()
      return
    self._sent_s = time.perf_counter()
    self._transport.write(request)


def _request(query: str, token: str) -> bytes:
  body = json.dumps(
    {"queries": [query], "topk": 3, "return_scores": True}
  ).encode()
  head = (
    "POST /retrieve HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n"
    f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
  )
  return head.encode() + body


def _queries(found: Sequence[tuple[str, str, str]], count: int) -> list[str]:
  """Different ones, spread over the passages."""
  first, last = _QUERY_WORDS
  queries = []
  for n in range(count):
    _, title, text = found[n * len(found) // count]
    words = text.split()[first:last]
    queries.append(f"{title} {' '.join(words)} {n}")
  return queries
