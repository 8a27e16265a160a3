"""WorkerPool: questions to child processes that may hang, grow or die.

Flow: `ask(request)` takes an idle worker (or starts one, up to `size`), writes
one JSON line, waits at most `limit_s` for one JSON line, and gives the worker
back. A worker that overshoots or dies is killed and never used again; the next
request gets a fresh one.

A program should limit its own processor time (SIGPROF, which it may inherit
ignored), for that does not depend on how busy the machine is; `limit_s` is the
wall clock's last word.

Threads may ask at the same time. Workers end with the process: their standard
input closes.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

from agentflow_jax.core import errors

_START_LIMIT_S = 120.0
_MAX_REPLY_BYTES = 65536
# Requests after which a worker is replaced, so that no cache grows for ever.
_REQUESTS_PER_WORKER = 2000


class WorkerPool:
  """At most `size` processes of one program.

  Example: `WorkerPool([sys.executable, "-I", path], size=2, limit_s=2.0)`.
  """

  def __init__(self, argv: Sequence[str], *, size: int, limit_s: float):
    """Starts nothing yet.

    Args:
      argv: the program; it writes one line when it is ready, then one line
        per line it reads.
      size: processes at a time; further requests wait.
      limit_s: wall-clock limit of one request.
    """
    self._argv = list(argv)
    self._limit_s = limit_s
    self._places = threading.BoundedSemaphore(size)
    self._lock = threading.Lock()
    self._idle: list[_Worker] = []
    self._closed = False
    atexit.register(self.close)

  def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
    """The reply, or None if the request ran into the limit or killed it.

    A worker that dies is no proof against the request (a system short of
    memory kills anybody), so it gets a second worker before it counts.

    Raises:
      RewardError: no worker can be started, or the pool is closed.
    """
    with self._places:
      for _ in range(2):
        worker = self._take()
        started_s = time.monotonic()
        reply = worker.ask(request, self._limit_s)
        if reply is not None:
          self._give_back(worker)
          return reply
        late = time.monotonic() - started_s >= self._limit_s
        if worker.kill() == -signal.SIGPROF or late:
          break
    return None

  def close(self) -> None:
    """Ends every idle worker. Idempotent."""
    with self._lock:
      self._closed = True
      idle, self._idle = self._idle, []
    for worker in idle:
      worker.kill()

  def _take(self) -> "_Worker":
    with self._lock:
      if self._closed:
        raise errors.RewardError("the worker pool is closed")
      if self._idle:
        return self._idle.pop()
    return _Worker(self._argv)

  def _give_back(self, worker: "_Worker") -> None:
    with self._lock:
      if not self._closed and worker.requests < _REQUESTS_PER_WORKER:
        self._idle.append(worker)
        return
    worker.kill()


class _Worker:
  """One process that has said it is ready."""

  def __init__(self, argv: Sequence[str]):
    self.requests = 0
    try:
      self._process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,  # Ctrl-C is for the parent
        bufsize=0,
      )
    except OSError as error:
      raise errors.RewardError(f"no worker can be started: {error}") from error
    if self._read_line(time.monotonic() + _START_LIMIT_S) is None:
      self.kill()
      raise errors.RewardError(
        f"the worker {argv[-1]} does not start; run it by hand to see why"
      )

  def ask(self, request: dict[str, Any], limit_s: float) -> Any:
    self.requests += 1
    stdin = self._process.stdin
    assert stdin is not None
    try:
      stdin.write(json.dumps(request).encode("ascii") + b"\n")
    except OSError:
      return None
    line = self._read_line(time.monotonic() + limit_s)
    try:
      return None if line is None else json.loads(line)
    except ValueError:
      return None

  def _read_line(self, until_s: float) -> bytes | None:
    """A line, or None at `until_s`, at the end, or if it does not end."""
    stdout = self._process.stdout
    assert stdout is not None
    found = b""
    with selectors.DefaultSelector() as selector:
      selector.register(stdout, selectors.EVENT_READ)
      while not found.endswith(b"\n") and len(found) < _MAX_REPLY_BYTES:
        if not selector.select(max(0.0, until_s - time.monotonic())):
          return None
        chunk = os.read(stdout.fileno(), _MAX_REPLY_BYTES)
        if not chunk:
          return None
        found += chunk
    return found

  def kill(self) -> int:
    """Ends it; the exit status tells what it died of if it was dead."""
    self._process.kill()
    for stream in (self._process.stdin, self._process.stdout):
      if stream is not None:
        stream.close()
    return self._process.wait()
