"""Deadlines on the monotonic clock, so that clock jumps never fire them."""

import asyncio
import dataclasses
import inspect
import math
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from agentflow_jax.core import errors

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Deadline:
  """A point in time nobody may await past.

  Example: `Deadline.after(30).sooner(5)` is 5 seconds from now.
  """

  at_s: float = math.inf  # time.monotonic() seconds

  @classmethod
  def after(cls, seconds: float) -> "Deadline":
    return cls(time.monotonic() + seconds)

  def sooner(self, seconds: float) -> "Deadline":
    """The earlier of this deadline and `seconds` from now."""
    return min(self, Deadline.after(seconds))

  def remaining_s(self) -> float:
    return max(0.0, self.at_s - time.monotonic())

  @property
  def passed(self) -> bool:
    return time.monotonic() >= self.at_s


NEVER = Deadline()


async def within(awaitable: Awaitable[_T], deadline: Deadline, what: str) -> _T:
  """Awaits, cancelling at the deadline.

  A coroutine runs up to its first wait before a timer is set, so one that
  answers without waiting needs none.

  Raises:
    DeadlineExceededError: `what` did not finish in time.
  """
  if math.isinf(deadline.at_s):
    return await awaitable
  try:
    if inspect.iscoroutine(awaitable):
      try:
        awaitable = _Started(awaitable, awaitable.send(None))
      except StopIteration as finished:
        return finished.value
    async with asyncio.timeout(deadline.remaining_s()):
      return await awaitable
  except TimeoutError as error:
    raise errors.DeadlineExceededError(
      f"{what} did not finish before its deadline"
    ) from error


class _Started:
  """The rest of a coroutine that was started and waits for something."""

  def __init__(self, coroutine: Coroutine[Any, Any, _T], waits_for: Any):
    self._coroutine = coroutine
    self._waits_for: Any = waits_for
    self.send = coroutine.send
    self.throw = coroutine.throw
    self.close = coroutine.close

  def __await__(self) -> Any:
    return self

  def __iter__(self) -> "_Started":
    return self

  def __next__(self) -> Any:
    """What the task is to wait for: at first what the start came to."""
    waits_for, self._waits_for = self._waits_for, _TOLD
    if waits_for is _TOLD:
      return self._coroutine.send(None)
    return waits_for


_TOLD = object()
