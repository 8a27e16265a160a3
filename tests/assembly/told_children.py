"""What is told to the processes that a test starts, as /proc shows it."""

import os
import pathlib
import threading


class Children:
  """All that is told to processes below this one, while it is open.

  Args:
    pause_s: between two looks; a process that is there for less is missed.
  """

  def __init__(self, pause_s=0.01):
    self._pause_s = pause_s
    self.told: dict[int, bytes] = {}
    self.arguments: dict[int, bytes] = {}  # of that, what anybody can read
    self._open = True
    self._thread = threading.Thread(target=self._watch)

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *exc_info):
    self._open = False
    self._thread.join()

  def _watch(self):
    pause = threading.Event()
    while self._open:
      self._look(os.getpid())
      pause.wait(self._pause_s)

  def _look(self, parent):
    for path in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
      for child in _read(path).split():
        pid = int(child)
        arguments = _read(f"/proc/{pid}/cmdline")
        self._look(pid)
        if arguments == _read(f"/proc/{parent}/cmdline"):
          continue  # a copy of its parent that has not begun its program
        told = arguments + b" " + _read(f"/proc/{pid}/environ")
        for kept, what in ((self.told, told), (self.arguments, arguments)):
          if what not in kept.get(pid, b""):
            kept[pid] = kept.get(pid, b"") + what


def _read(path):
  try:
    return pathlib.Path(path).read_bytes()
  except OSError:  # it has ended, or is not ours to read
    return b""
