"""WorkerPool: questions to child processes that may hang, grow or die.

Flow: `ask(request)` takes an idle worker (or starts one, up to `size`), writes
one JSON line, waits for one JSON line, and gives the worker back. A worker that
overshoots or dies is killed and never used again; the next request gets a fresh
one.

What a request may take, looked at every 50 ms:
  cpu_limit_s  processor time of the worker. The program should limit itself,
               too (SIGPROF, which it may inherit ignored).
  limit_s      time in which the worker could run: a wall clock that stands
               still while it waits for a processor. A hang ends here.
Neither depends on how busy the machine is. A worker that gets no processor at
all for a minute is a failed machine and says nothing about the request.

Where the kernel does not tell (no /proc), the program's own limit and a plain
wall clock of `limit_s` are left.

Threads may ask at the same time. Workers end with the process: their standard
input closes.
"""

import atexit
import json
import math
import os
import pathlib
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

from agentflow_jax.core import errors

_START_LIMIT_S = 120.0
_POLL_S = 0.05
_STARVED_S = 60.0
_MAX_REPLY_BYTES = 65536
# Requests after which a worker is replaced, so that no cache grows for ever.
_REQUESTS_PER_WORKER = 2000


class WorkerPool:
  """At most `size` processes of one program.

  Example: `WorkerPool([sys.executable, "-I", path], size=2, limit_s=10.0,
  cpu_limit_s=2.0)`.
  """

  def __init__(
    self,
    argv: Sequence[str],
    *,
    size: int,
    limit_s: float,
    cpu_limit_s: float = math.inf,
  ):
    """Starts nothing yet.

    Args:
      argv: the program; it writes one line when it is ready, then one line
        per line it reads.
      size: processes at a time; further requests wait.
      limit_s: of one request, without the time it waits for a processor.
      cpu_limit_s: processor time of one request.
    """
    self._argv = list(argv)
    self._limit_s = limit_s
    self._cpu_limit_s = cpu_limit_s
    self._places = threading.BoundedSemaphore(size)
    self._lock = threading.Lock()
    self._idle: list[_Worker] = []
    self._closed = False
    atexit.register(self.close)

  def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
    """The reply, or None if the request ran into a limit or killed it.

    A worker that dies is no proof against the request (a system short of
    memory kills anybody), so it gets a second worker before it counts.

    Raises:
      RewardError: no worker can be started, the pool is closed, or the worker
        got no processor.
    """
    with self._places:
      for _ in range(2):
        worker = self._take()
        reply = worker.ask(request, self._limit_s, self._cpu_limit_s)
        if reply is not None:
          self._give_back(worker)
          return reply
        if worker.kill() == -signal.SIGPROF or worker.overshot:
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
    self.overshot = False  # a limit, in the last request
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
    if self._read_line(_START_LIMIT_S, math.inf) is None:
      self.kill()
      raise errors.RewardError(
        f"the worker {argv[-1]} does not start; run it by hand to see why"
      )

  def ask(
    self, request: dict[str, Any], limit_s: float, cpu_limit_s: float
  ) -> Any:
    """The reply, or None: it died, wrote no JSON, or overshot a limit."""
    self.requests += 1
    stdin = self._process.stdin
    assert stdin is not None
    try:
      stdin.write(json.dumps(request).encode("ascii") + b"\n")
    except OSError:
      return None
    line = self._read_line(limit_s, cpu_limit_s)
    try:
      return None if line is None else json.loads(line)
    except ValueError:
      return None

  def cpu_s(self) -> float:
    """Processor time it has used since it was started; 0.0 if unknown."""
    try:
      text = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text("ascii")
    except OSError:
      return 0.0
    user, system = text.rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

  def _read_line(self, limit_s: float, cpu_limit_s: float) -> bytes | None:
    """A line, or None at a limit, at the end, or if it does not end.

    Raises:
      RewardError: the worker got no processor; it is killed.
    """
    stdout = self._process.stdout
    assert stdout is not None
    self.overshot = False
    began_s, waited_s = time.monotonic(), _waited_s(self._process.pid)
    cpu_limit_s += self.cpu_s()
    found = b""
    with selectors.DefaultSelector() as selector:
      selector.register(stdout, selectors.EVENT_READ)
      while len(found) < _MAX_REPLY_BYTES:
        if selector.select(min(_POLL_S, limit_s)):
          chunk = os.read(stdout.fileno(), _MAX_REPLY_BYTES)
          if not chunk:
            return None
          found += chunk
          if found.endswith(b"\n"):
            break
        passed_s = time.monotonic() - began_s
        starved_s = _waited_s(self._process.pid) - waited_s
        if passed_s - starved_s >= limit_s or self.cpu_s() >= cpu_limit_s:
          self.overshot = True
          return None
        if starved_s >= _STARVED_S:
          self.kill()
          raise errors.RewardError(
            f"a worker waited {starved_s:.0f} s for a processor: the machine "
            "is too busy to score answers"
          )
    return found

  def kill(self) -> int:
    """Ends it; the exit status tells what it died of if it was dead."""
    self._process.kill()
    for stream in (self._process.stdin, self._process.stdout):
      if stream is not None:
        stream.close()
    return self._process.wait()


def _waited_s(pid: int) -> float:
  """How long a process was ready to run and had no processor, so far."""
  try:
    text = pathlib.Path(f"/proc/{pid}/schedstat").read_text("ascii")
  except OSError:
    return 0.0
  return int(text.split()[1]) / 1e9
