"""Runs model-written Python in a Rust interpreter in a subprocess.

Flow: a thread of tools/sandbox.py checks a worker process out of the
pydantic-monty pool with a fresh session, feeds the code once
(tools/sandbox_program.py) and returns what it printed, or else the value of
its last expression.

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

import dataclasses
import threading
import time
from typing import Any

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import sandbox as sandbox_lib
from agentflow_jax.tools import sandbox_program
from agentflow_jax.tools import text as text_lib

_REMEDY = "install it with `pip install pydantic-monty`"
_MAX_RECURSION = 1000  # as CPython
# Sleeping does not count as execution time, so it has a budget of its own.
_MAX_SLEEP_S = 1.0
# How long past its limit a worker may take to say so before it is killed.
_GRACE_S = 1.0
# Sessions after which a worker is replaced, so that no heap grows for ever.
_RUNS_PER_WORKER = 256


class MontySandbox(sandbox_lib.Sandbox[sandbox_program.MontyProgram]):
  """A pool of sandboxed interpreters; workers start with the first run."""

  modules = (
    "math, re, json, datetime, decimal, random, itertools, functools, "
    "collections, bisect, csv, copy, dataclasses, typing"
  )
  missing = "no numpy, sympy or pandas"
  style = (
    "It may define functions, but no class that inherits and no generator."
  )

  def __init__(self, limits: sandbox_lib.Limits | None = None):
    """Prepares the pool; no process is started yet.

    Raises:
      UserError: the sandbox is not installed.
    """
    super().__init__(limits or sandbox_lib.Limits())
    self._sleep_s = min(_MAX_SLEEP_S, self._limits.timeout_s)
    self._monty = _import_monty()
    self._pool = self._new_pool()
    self._start_lock = threading.Lock()
    self._started = False

  def _new_pool(self) -> Any:
    try:
      return self._monty.Monty(
        max_processes=self._limits.threads,
        request_timeout=self._limits.timeout_s + 2 * _GRACE_S,
        feed_duration_limit_grace=_GRACE_S,
        max_checkouts_per_worker=_RUNS_PER_WORKER,
      )
    except FileNotFoundError as error:
      raise self._refusal(str(error)) from error

  def _new_program(self, code: str) -> sandbox_program.MontyProgram:
    return sandbox_program.MontyProgram(code)

  def _refusal(self, reason: str) -> errors.UserError:
    return sandbox_lib.does_not_work(reason, _REMEDY)

  def _end(self) -> None:
    with self._start_lock:
      started, self._started = self._started, False
    if started:
      self._pool.__exit__(None, None, None)

  def _run_blocking(
    self, program: sandbox_program.MontyProgram
  ) -> sandbox_lib.SandboxRun:
    program.raise_if_cancelled()
    run = self._fed(program)
    return dataclasses.replace(
      run, duration_s=time.monotonic() - program.started_s
    )

  def _fed(
    self, program: sandbox_program.MontyProgram
  ) -> sandbox_lib.SandboxRun:
    monty = self._monty
    try:
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
      return sandbox_lib.limit_exceeded(
        f"output limit of {sandbox_program.MAX_OUTPUT_CHARS} characters"
      )
    return sandbox_lib.SandboxRun(output=program.output)

  def _start(self) -> None:
    with self._start_lock:
      if not self._started:
        self._pool.__enter__()
        self._started = True

  def _checkout(self) -> Any:
    return self._pool.checkout(
      limits={
        "max_feed_duration_secs": self._limits.timeout_s,
        "max_memory": self._limits.memory_mb << 20,
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
    self, error: Any, program: sandbox_program.MontyProgram
  ) -> sandbox_lib.SandboxRun:
    """Whose fault an error is: the program's, a limit's, or the host's."""
    monty = self._monty
    if not isinstance(error, (monty.MontySyntaxError, monty.MontyRuntimeError)):
      if getattr(error, "timed_out", False):
        return sandbox_lib.limit_exceeded(
          f"time limit of {self._limits.timeout_s:g} s"
        )
      if not program.cancelled:
        logging.warning("a sandbox worker died: %s", error)
      raise errors.ToolHostError(f"a sandbox worker died: {error}") from error
    exception = error.exception()
    text = str(exception)[: 4 * sandbox_lib.MAX_MESSAGE_CHARS]
    if isinstance(exception, TimeoutError) and "limit exceeded" in text:
      if text.startswith("sleep"):
        return sandbox_lib.limit_exceeded(f"sleep limit of {self._sleep_s:g} s")
      return sandbox_lib.limit_exceeded(
        f"time limit of {self._limits.timeout_s:g} s"
      )
    if isinstance(exception, MemoryError) and "memory limit" in text:
      return sandbox_lib.limit_exceeded(
        f"memory limit of {self._limits.memory_mb} MiB"
      )
    frames = error.traceback()
    where = ""
    if frames and frames[-1].filename.startswith("<python-input"):
      where = f" (line {frames[-1].line})"
    message = f"{type(exception).__name__}: {text}".removesuffix(": ")
    return sandbox_lib.SandboxRun(
      error=tool_lib.ToolErrorKind.EXECUTION,
      message=text_lib.one_line(message, sandbox_lib.MAX_MESSAGE_CHARS) + where,
    )


def _import_monty() -> Any:
  try:
    import pydantic_monty
  except ImportError as error:
    raise sandbox_lib.does_not_work(str(error), _REMEDY) from error
  return pydantic_monty
