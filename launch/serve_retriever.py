"""Serves a saved index over HTTP, for search tools in other processes.

POST /retrieve {"queries": ["..."], "topk": 3, "return_scores": true}, as
Search-R1's retriever; `tools.google_backend=retrieve` and `tools.google_url`
use it. Listens on loopback and wants the token in RETRIEVER_TOKEN.

Example:
  export RETRIEVER_TOKEN=$(openssl rand -hex 32)
  python launch/serve_retriever.py --index=runs/wiki-index --port=8000
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import Any

from absl import flags

from agentflow_jax.rollout import steady_heap
from agentflow_jax.tools import (
  bm25_index,
  bm25_pruning,
  retrieval_server,
  search_services,
  serving,
)
from agentflow_jax.training import cli

_INDEX = flags.DEFINE_string(
  "index", None, "What launch/build_index.py wrote.", required=True
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
_PORT = flags.DEFINE_integer(
  "port", 8000, "Port to listen on; 0 is any.", lower_bound=0, upper_bound=65535
)
_WORKERS = flags.DEFINE_integer(
  "workers", 0, "Processes; 0 is one per CPU.", lower_bound=0
)
_NO_TOKEN = flags.DEFINE_bool(
  "no_token", False, "Answer everybody (on loopback only)."
)


def main(argv: list[str]) -> None:
  del argv
  token = serving.token(
    search_services.RETRIEVER_TOKEN,
    host=_HOST.value,
    without=_NO_TOKEN.value,
    what="the index",
  )
  serving.import_httptools()
  index = bm25_index.Bm25Index.open(_INDEX.value, _best())
  workers = _WORKERS.value or len(os.sched_getaffinity(0))
  with serving.listen(_HOST.value, _PORT.value, shared=True) as first:
    port = first.getsockname()[1]
    print(f"serving {len(index)} passages on {_HOST.value}:{port}", flush=True)
    # Children hear from this pipe that we are gone, even if we were killed.
    alive, held = os.pipe()
    children = []
    for _ in range(workers - 1):
      child = os.fork()
      if child == 0:
        first.close()
        os.close(held)
        with serving.listen(_HOST.value, port, shared=True) as own:
          _serve(index, token, own, alive)
        os._exit(0)
      children.append(child)
    try:
      _serve(index, token, first, alive)
    finally:
      for child in children:
        with contextlib.suppress(ProcessLookupError):
          os.kill(child, signal.SIGTERM)
      for child in children:
        os.waitpid(child, 0)


def _best() -> Any:
  """What searches: machine code if it can be compiled here."""
  try:
    from agentflow_jax.tools import bm25_compiled
  except ImportError as error:  # no numba for this Python
    print(f"searching several times slower: {error}", file=sys.stderr)
    return bm25_pruning.best
  return bm25_compiled.best


def _serve(
  index: bm25_index.Bm25Index, token: str, sock: socket.socket, alive: int
) -> None:
  """Serves until a signal, or until the parent is gone."""

  async def until_stopped() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
      loop.add_signal_handler(number, stop.set)
    loop.add_reader(alive, stop.set)
    retriever = retrieval_server.Retriever(index, token)
    await retrieval_server.serve(retriever, [sock], stop)

  with steady_heap.steady_heap():  # its garbage is little, its index large
    try:
      import uvloop
    except ImportError:  # slower, otherwise the same
      asyncio.run(until_stopped())
    else:
      uvloop.run(until_stopped())


if __name__ == "__main__":
  cli.run_app(main)
