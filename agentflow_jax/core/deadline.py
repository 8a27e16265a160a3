"""Deadlines on the monotonic clock, so that clock jumps never fire them."""

import asyncio
import dataclasses
import math
import time
from collections.abc import Awaitable
from typing import TypeVar

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

  Raises:
    DeadlineExceededError: `what` did not finish in time.
  """
  if math.isinf(deadline.at_s):
    return await awaitable
  try:
    async with asyncio.timeout(deadline.remaining_s()):
      return await awaitable
  except TimeoutError as error:
    raise errors.DeadlineExceededError(
      f"{what} did not finish before its deadline"
    ) from error
