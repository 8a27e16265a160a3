"""Functions that may never return, each call in a daemon thread of its own.

asyncio's pool has a handful of threads, which rewards, search and the learner
use as well, and the process can not end before all of them are free: a few
hung calls would stop everything. Here a hung call costs one idle thread, the
calls of others go on, and the process ends without it.
"""

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Any

from agentflow_jax.core import errors

# Far more than a tool that answers ever needs; each hung call keeps one.
MAX_RUNNING = 1024


class CallThreads:
  """Calls of one tool, counted.

  Example: `await CallThreads("word_count").run(len, "abc")` is 3.
  """

  def __init__(self, name: str, max_running: int = MAX_RUNNING):
    self._name = name
    self._max_running = max_running
    self._lock = threading.Lock()
    self._running = 0

  @property
  def running(self) -> int:
    """Calls that have not returned, whether or not anyone still waits."""
    return self._running

  async def run(self, function: Callable[..., Any], *args, **kwargs) -> Any:
    """What `function` returns, or its exception.

    A cancelled call is left alone: its thread runs until the function returns.

    Raises:
      ToolHostError: as many calls as are allowed have not returned.
    """
    with self._lock:
      if self._running >= self._max_running:
        raise errors.ToolHostError(
          f"{self._name}: {self._running} calls have not returned"
        )
      self._running += 1
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    call = functools.partial(
      contextvars.copy_context().run, function, *args, **kwargs
    )
    thread = threading.Thread(
      target=self._call, args=(call, loop, answer), daemon=True
    )
    thread.name = f"tool-{self._name}"
    thread.start()
    return await answer

  def _call(self, call, loop, answer) -> None:
    value, raised = None, None
    try:
      value = call()
    except BaseException as error:  # noqa: BLE001 it is the waiting one's
      raised = error
    finally:
      with self._lock:
        self._running -= 1
    with contextlib.suppress(RuntimeError):  # the loop may be closed by now
      loop.call_soon_threadsafe(_settle, answer, value, raised)


def _settle(answer, value, raised) -> None:
  if answer.done():  # cancelled meanwhile
    return
  if isinstance(raised, StopIteration):  # a future does not take it
    raised = RuntimeError(f"StopIteration: {raised.value}")
  if raised is None:
    answer.set_result(value)
  else:
    answer.set_exception(raised)
