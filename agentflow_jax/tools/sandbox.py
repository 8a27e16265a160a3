"""Runs model-written Python in a sandbox: a Rust interpreter in a subprocess.

Flow: `MontySandbox.run(code)` takes one of `workers` threads, checks a worker
process out of the pydantic-monty pool with a fresh session, feeds the code
once (tools/sandbox_program.py) and returns what it printed, or else the value
of its last expression.

The interpreter (Monty) implements a subset of Python with no operating system
behind it: no files, network, environment, processes, foreign functions or
imports outside its own small library. It counts time, memory, output and
recursion itself; a worker that overshoots is killed and replaced. Worker
processes start with an empty environment. Nothing a program produces becomes a
Python object here except bounded text: the value of the last expression is
printed inside the sandbox, because a small value can have an enormous `repr`.

The pool's blocking interface is used from threads of our own. Its asyncio
interface completes futures from foreign threads, and CPython 3.11 aborts
(SIGABRT) when one of them waits for the GIL while the interpreter shuts down.

What this does not cover: a bug in the interpreter itself. An escape from it
would run with this user's rights; a worker has no namespace or seccomp jail.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import threading
from typing import Any

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import sandbox_program
from agentflow_jax.tools import text as text_lib

_PACKAGE = "pydantic-monty"
_MAX_CODE_CHARS = 100_000
_MAX_MESSAGE_CHARS = 300
_MAX_RECURSION = 1000  # as CPython
# Sleeping does not count as execution time, so it has a budget of its own.
_MAX_SLEEP_S = 1.0
# How long past its limit a worker may take to say so before it is killed.
_GRACE_S = 1.0
# Sessions after which a worker is replaced, so that no heap grows for ever.
_RUNS_PER_WORKER = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRun:
  """How one program ended.

  `output` is the printed text, or the last expression's value if nothing was
  printed. `error` is None, EXECUTION (the program raised or is not Python) or
  LIMIT (time, memory, output); `message` is then one line without host paths.

  Example: `SandboxRun(output="129")` or `SandboxRun(error=EXECUTION,
  message="ZeroDivisionError: division by zero (line 2)")`.
  """

  output: str = ""
  error: tool_lib.ToolErrorKind | None = None
  message: str = ""


class MontySandbox:
  """A pool of sandboxed interpreters, usable from any event loop.

  Workers start with the first run. At most `workers` programs run at a time;
  further ones wait for a thread.
  """

  def __init__(
    self,
    *,
    timeout_s: float = 10.0,
    memory_mb: int = 256,
    workers: int | None = None,
  ):
    """Prepares the pool; no process is started yet.

    Args:
      timeout_s: execution time of one program.
      memory_mb: heap of one program, in mebibytes.
      workers: programs that run at a time; None is one per CPU, at least 4
        (a program in an endless loop blocks its worker for `timeout_s`).

    Raises:
      UserError: the sandbox is not installed.
    """
    if timeout_s <= 0 or memory_mb <= 0 or (workers or 1) <= 0:
      raise errors.ConfigError(
        "the sandbox needs positive limits, got "
        f"{timeout_s=}, {memory_mb=}, {workers=}"
      )
    self._timeout_s = timeout_s
    self._sleep_s = min(_MAX_SLEEP_S, timeout_s)
    self._memory_mb = memory_mb
    self._workers = workers or max(4, os.cpu_count() or 1)
    self._monty = _import_monty()
    self._pool = self._new_pool()
    self._threads = concurrent.futures.ThreadPoolExecutor(
      self._workers, thread_name_prefix="python-sandbox"
    )
    self._submit_lock = threading.Lock()
    self._start_lock = threading.Lock()
    self._started = False
    self._closed = False
    self._programs: set[sandbox_program.Program] = set()

  def _new_pool(self) -> Any:
    try:
      return self._monty.Monty(
        max_processes=self._workers,
        request_timeout=self._timeout_s + 2 * _GRACE_S,
        feed_duration_limit_grace=_GRACE_S,
        max_checkouts_per_worker=_RUNS_PER_WORKER,
      )
    except FileNotFoundError as error:
      raise _missing(str(error)) from error

  async def check(self) -> None:
    """Runs one program for real.

    Raises:
      UserError: the sandbox does not work on this machine.
    """
    try:
      run = await self.run("print(6 * 7)")
    except errors.ToolHostError as error:
      raise _missing(str(error)) from error
    if run != SandboxRun(output="42"):
      raise _missing(f"print(6 * 7) gave {run}")

  async def run(self, code: str) -> SandboxRun:
    """Runs `code` once, in a session nothing else shares.

    If the caller is cancelled, the program is killed.

    Raises:
      ToolHostError: the sandbox is closed, or its worker died.
    """
    if len(code) > _MAX_CODE_CHARS:
      return SandboxRun(
        error=tool_lib.ToolErrorKind.EXECUTION,
        message=f"the code is longer than {_MAX_CODE_CHARS} characters",
      )
    program = sandbox_program.Program(code)
    with self._submit_lock:
      if self._closed:
        raise errors.ToolHostError("the code sandbox is closed")
      future = self._threads.submit(self._run_blocking, program)
      self._programs.add(program)
    try:
      return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
      program.cancel()
      raise
    finally:
      self._programs.discard(program)

  async def aclose(self) -> None:
    """Kills running programs and ends every worker process. Idempotent."""
    with self._submit_lock:
      self._closed = True
    for program in list(self._programs):
      program.cancel()
    await asyncio.to_thread(self._shut_down)

  def _shut_down(self) -> None:
    self._threads.shutdown(wait=True)
    with self._start_lock:
      started, self._started = self._started, False
    if started:
      self._pool.__exit__(None, None, None)

  def _run_blocking(self, program: sandbox_program.Program) -> SandboxRun:
    monty = self._monty
    try:
      program.raise_if_cancelled()
      self._start()
      with self._checkout() as session:
        try:
          program.attach(session.worker_pid)
          program.feed(monty, session)
        finally:
          program.detach()
    except monty.MontyError as error:
      if not program.output_limit_hit:
        return self._failure(error, program)
    except (OSError, RuntimeError) as error:
      raise errors.ToolHostError(f"the sandbox failed: {error}") from error
    if program.output_limit_hit:
      return _limit(
        f"output limit of {sandbox_program.MAX_OUTPUT_CHARS} characters"
      )
    return SandboxRun(output=program.output)

  def _start(self) -> None:
    with self._start_lock:
      if not self._started:
        self._pool.__enter__()
        self._started = True

  def _checkout(self) -> Any:
    return self._pool.checkout(
      limits={
        "max_feed_duration_secs": self._timeout_s,
        "max_memory": self._memory_mb << 20,
        "max_recursion_depth": _MAX_RECURSION,
        "max_total_sleep_secs": self._sleep_s,
      },
      os_policy={
        # One long sleep is refused by the budget, not silently shortened.
        "sleep_system_max": float("inf"),
        # The same program gives the same output in every run.
        "random_start": {"seed": 0},
      },
    )

  def _failure(
    self, error: Any, program: sandbox_program.Program
  ) -> SandboxRun:
    """Whose fault an error is: the program's, a limit's, or the host's."""
    monty = self._monty
    if not isinstance(error, (monty.MontySyntaxError, monty.MontyRuntimeError)):
      if getattr(error, "timed_out", False):
        return _limit(f"time limit of {self._timeout_s:g} s")
      if not program.cancelled:
        logging.warning("a sandbox worker died: %s", error)
      raise errors.ToolHostError(f"a sandbox worker died: {error}") from error
    exception = error.exception()
    text = str(exception)[: 4 * _MAX_MESSAGE_CHARS]
    if isinstance(exception, TimeoutError) and "limit exceeded" in text:
      if text.startswith("sleep"):
        return _limit(f"sleep limit of {self._sleep_s:g} s")
      return _limit(f"time limit of {self._timeout_s:g} s")
    if isinstance(exception, MemoryError) and "memory limit" in text:
      return _limit(f"memory limit of {self._memory_mb} MiB")
    frames = error.traceback()
    where = ""
    if frames and frames[-1].filename.startswith("<python-input"):
      where = f" (line {frames[-1].line})"
    message = f"{type(exception).__name__}: {text}".removesuffix(": ")
    return SandboxRun(
      error=tool_lib.ToolErrorKind.EXECUTION,
      message=text_lib.one_line(message, _MAX_MESSAGE_CHARS) + where,
    )


def _limit(which: str) -> SandboxRun:
  return SandboxRun(
    error=tool_lib.ToolErrorKind.LIMIT, message=f"{which} exceeded"
  )


def _import_monty() -> Any:
  try:
    import pydantic_monty
  except ImportError as error:
    raise _missing(str(error)) from error
  return pydantic_monty


def _missing(reason: str) -> errors.UserError:
  return errors.UserError(
    f"the code sandbox does not work ({text_lib.one_line(reason, 200)}); "
    f"install it with `pip install {_PACKAGE}`, or remove python_coder from "
    "tools.enabled: model code never runs outside it"
  )
