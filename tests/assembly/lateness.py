"""How late a step ends, on a machine that others use too."""

import pathlib
import threading
import time


class Late:
  """The time from a deadline on, without waiting for a processor.

  Made and asked on the event loop's thread. On the clock, so that a step which
  sleeps is late as well; what this one thread waited in run queues is taken
  off, so that a machine full of other work is no finding. A thread waits in one
  queue at a time; what all threads waited would add up to more than passed.
  """

  def __init__(self, deadline_s):
    self._thread = threading.get_native_id()
    self._passed_s = time.monotonic() + deadline_s
    self._waited_s = 0.0
    # A thread, because the loop may be what is stuck.
    self._timer = threading.Timer(deadline_s, self._passed)
    self._timer.start()

  def _passed(self):
    self._waited_s = _waited_s(self._thread)

  def seconds(self):
    """Negative before the deadline."""
    self._timer.cancel()
    self._timer.join()
    late_s = time.monotonic() - self._passed_s
    if late_s <= 0:
      return late_s
    # A wait that was under way at the deadline is taken off from its start.
    return max(0.0, late_s - (_waited_s(self._thread) - self._waited_s))


def _waited_s(thread):
  """How long a thread of this process was ready to run and did not."""
  path = pathlib.Path(f"/proc/self/task/{thread}/schedstat")
  return int(path.read_text().split()[1]) / 1e9
