"""Ctrl-C and SIGTERM as a question that the outer loop asks.

The first signal only sets a flag, so that the loop finishes its iteration,
saves and exits 0 (what a pre-empted host needs); a second Ctrl-C gives up at
once. It stops nothing by itself: somebody has to poll `requested`.
"""

import os
import signal
import sys
import types

_EXIT_INTERRUPTED = 130
_SHOW_CURSOR = "\x1b[?25h"  # a live progress display hides it


class Stopped(Exception):
  """Raised by `StopSignal.check`, where there is nothing to save yet."""


class StopSignal:
  """Polled by the loop; the handlers live as long as the `with` block.

  Example:
    with StopSignal() as stop:
      while not stop.requested:
        ...
  """

  def __init__(self):
    self._requested = False
    self._previous = {}

  @property
  def requested(self) -> bool:
    return self._requested

  def check(self) -> None:
    """Raises `Stopped` once a signal came."""
    if self._requested:
      raise Stopped

  def __enter__(self) -> "StopSignal":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *unused) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if self._requested and number == signal.SIGINT:
      # No clean-up: it may be what hangs. Files are whole at any moment.
      _say(_SHOW_CURSOR if sys.stderr.isatty() else "")
      os._exit(_EXIT_INTERRUPTED)
    if not self._requested:
      self._requested = True
      name = signal.Signals(number).name
      _say(f"{name}: stopping at the next safe point; Ctrl-C again exits now\n")


def _say(text: str) -> None:
  # Not sys.stderr.write: a handler may run in the middle of one.
  os.write(2, text.encode())
