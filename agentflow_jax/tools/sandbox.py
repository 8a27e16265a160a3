"""What every code sandbox has in common: how a program is run and ended.

Flow: `Sandbox.run(code)` -> one of `workers` threads -> `_run_blocking` of the
kind of sandbox -> `SandboxRun`. A caller that is cancelled, and `aclose`, kill
what runs. Threads of our own make a sandbox usable from any event loop.

The kinds are tools/monty_sandbox.py (a subset of Python in a Rust interpreter,
the default) and tools/bubblewrap_sandbox.py (all of CPython in a jail of the
operating system). If the chosen one does not work here, nothing runs: there is
no third way that would run model code unprotected.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import threading
from typing import Generic, TypeVar

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import sandbox_program
from agentflow_jax.tools import text as text_lib

MAX_CODE_CHARS = 100_000
MAX_MESSAGE_CHARS = 300

_ProgramT = TypeVar("_ProgramT", bound=sandbox_program.Program)


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
  # From its start until it was gone; two equal runs may differ in it.
  duration_s: float = dataclasses.field(default=0.0, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
  """What one program may use.

  Args:
    timeout_s: execution time.
    memory_mb: heap, in mebibytes.
    workers: programs that run at a time; None is one per CPU, at least 4 (a
      program in an endless loop blocks its worker for `timeout_s`).

  Raises:
    ConfigError: a limit is not positive.
  """

  timeout_s: float = 10.0
  memory_mb: int = 256
  workers: int | None = None

  def __post_init__(self):
    if self.timeout_s <= 0 or self.memory_mb <= 0 or (self.workers or 1) <= 0:
      raise errors.ConfigError(
        f"the sandbox needs positive limits, got timeout_s={self.timeout_s}, "
        f"memory_mb={self.memory_mb}, workers={self.workers}"
      )

  @property
  def threads(self) -> int:
    return self.workers or max(4, os.cpu_count() or 1)


class Sandbox(Generic[_ProgramT]):
  """Runs programs, at most `workers` at a time; further ones wait.

  Example: `await sandbox.run("print(50 + 79)")` is `SandboxRun(output="129")`.
  """

  # What to tell the engine that writes the programs, and the planner.
  modules = ""  # those a program may import
  missing = ""  # what it would expect and does not get; "" = nothing
  style = ""  # a rule for the engine; "" = none

  def __init__(self, limits: Limits):
    self._limits = limits
    self._threads = concurrent.futures.ThreadPoolExecutor(
      limits.threads, thread_name_prefix="python-sandbox"
    )
    self._submit_lock = threading.Lock()
    self._closed = False
    self._programs: set[_ProgramT] = set()

  def _new_program(self, code: str) -> _ProgramT:
    raise NotImplementedError

  def _run_blocking(self, program: _ProgramT) -> SandboxRun:
    """Runs it in this thread. Raises ToolHostError if the host failed."""
    raise NotImplementedError

  def _refusal(self, reason: str) -> errors.UserError:
    """One line: the sandbox does not work, and what to do."""
    raise NotImplementedError

  def _end(self) -> None:
    """Ends what outlives a program; no thread uses it any more."""

  async def check(self) -> None:
    """Runs one program for real.

    Raises:
      UserError: the sandbox does not work on this machine.
    """
    try:
      run = await self.run("print(6 * 7)")
    except errors.ToolHostError as error:
      raise self._refusal(str(error)) from error
    if run != SandboxRun(output="42"):
      raise self._refusal(f"print(6 * 7) gave {run}")

  async def run(self, code: str) -> SandboxRun:
    """Runs `code` once, in surroundings nothing else shares.

    If the caller is cancelled, the program is killed.

    Raises:
      ToolHostError: the sandbox is closed, or its worker died.
    """
    if len(code) > MAX_CODE_CHARS:
      return SandboxRun(
        error=tool_lib.ToolErrorKind.EXECUTION,
        message=f"the code is longer than {MAX_CODE_CHARS} characters",
      )
    program = self._new_program(code)
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
    self._end()


def limit_exceeded(which: str) -> SandboxRun:
  """A program ran into "time limit of 10 s" or the like."""
  return SandboxRun(
    error=tool_lib.ToolErrorKind.LIMIT, message=f"{which} exceeded"
  )


def does_not_work(reason: str, remedy: str) -> errors.UserError:
  """The one line for a sandbox that is missing or broken."""
  return errors.UserError(
    f"the code sandbox does not work ({text_lib.one_line(reason, 200)}); "
    f"{remedy}, or remove python_coder from tools.enabled: model code never "
    "runs outside it"
  )
