"""One program in a sandbox, and how Monty is fed with one.

Flow: `attach` to a worker process, run, `detach`. For Monty, `feed` runs it:
the text is fed once, with its last expression kept in a variable; if nothing
was printed, a second feed prints that variable inside the sandbox. No value
leaves the sandbox as an object.

What it does not do: parse source text. Whether the last line is an expression
is left to the sandbox's own parser.
"""

import contextlib
import os
import signal
import threading
import time
from typing import Any

from agentflow_jax.core import errors

# Characters a program may print before it is stopped.
MAX_OUTPUT_CHARS = 1 << 20

_LAST_VALUE = "_last_value"


class Program:
  """One run: its source, and how to kill it from outside.

  Its worker's process id is known only while the program holds the session,
  so a kill never hits a worker that already serves somebody else.
  """

  def __init__(self, code: str):
    self.code = code
    self.cancelled = False
    self._lock = threading.Lock()
    self._pid: int | None = None
    self.started_s = 0.0  # monotonic, once a worker has it

  def attach(self, pid: int | None) -> None:
    """Called with the session held, before anything runs."""
    with self._lock:
      self._pid = pid
    self.started_s = time.monotonic()
    self.raise_if_cancelled()

  def detach(self) -> None:
    with self._lock:
      self._pid = None

  def raise_if_cancelled(self) -> None:
    if self.cancelled:
      raise errors.ToolHostError("the program was cancelled")

  def cancel(self) -> None:
    self.cancelled = True
    self.kill()

  def kill(self) -> None:
    with self._lock:
      if self._pid is not None:
        with contextlib.suppress(ProcessLookupError):  # died by itself
          self.send_kill(self._pid)

  def send_kill(self, pid: int) -> None:
    """Kills a worker process, and what belongs to it."""
    os.kill(pid, signal.SIGKILL)

  @property
  def running(self) -> bool:
    return self._pid is not None


class MontyProgram(Program):
  """A program fed to a Monty session, and what it printed."""

  def __init__(self, code: str):
    super().__init__(code)
    self._printed: list[str] = []
    self._room_chars = MAX_OUTPUT_CHARS

  def feed(self, monty: Any, session: Any) -> None:
    """Runs the program, then prints its last value if it printed nothing."""
    with_value = _keep_last_value(self.code)
    if with_value is not None:
      try:
        session.feed_run(
          with_value,
          print_callback=self.on_print,
          inputs={_LAST_VALUE: None},
        )
      except monty.MontySyntaxError:
        # A parse error comes before anything ran. Output means it did run, and
        # the error is the program's own (`eval("1 +")`).
        if self.output:
          raise
      else:
        if not self.output:
          session.feed_run(
            f"if {_LAST_VALUE} is not None: print({_LAST_VALUE})",
            print_callback=self.on_print,
          )
        return
    # A trailing None keeps the program's last value inside the sandbox.
    session.feed_run(f"{self.code}\nNone", print_callback=self.on_print)

  def on_print(self, stream: str, text: str) -> None:
    """Takes printed text, a few KB at a time; too much ends the program.

    The pool's own output limit would let the program run on, unheard.
    """
    del stream
    self._room_chars -= len(text)
    if self._room_chars < 0:
      self.kill()
    else:
      self._printed.append(text)

  @property
  def output_limit_hit(self) -> bool:
    return self._room_chars < 0

  @property
  def output(self) -> str:
    return "".join(self._printed).rstrip()


def _keep_last_value(code: str) -> str | None:
  """`code` with its last unindented statement assigned to `_LAST_VALUE`.

  The result parses only if that statement is an expression: an annotated
  assignment is a statement and nothing else, so a line that is in truth the
  middle of a call, a string or a bracket can not become something valid.

  Example: "x = 3\\nx * 2" -> "x = 3\\n_last_value: object = (x * 2\\n)".
  """
  lines = code.split("\n")
  for index in range(len(lines) - 1, -1, -1):
    if lines[index].strip() and lines[index][0] not in " \t\r#":
      head = "".join(line + "\n" for line in lines[:index])
      tail = "\n".join(lines[index:])
      return f"{head}{_LAST_VALUE}: object = ({tail}\n)"
  return None
