"""Two guards of an engine: so many calls at once, none while it is down.

Both are core Engines around another one and know nothing of HTTP. The limit
stands outside of the retries (a call that waits to be retried keeps its place,
which slows everybody down when the host is busy), the circuit breaker inside
(every try is counted, and none is made while the circuit is open).
"""

import asyncio
import time
from collections.abc import Sequence

from absl import logging

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib


class ConcurrencyLimit:
  """At most `limit` calls at the same time; further ones wait in order."""

  def __init__(self, engine: engine_lib.Engine, limit: int):
    self._engine = engine
    self._places = asyncio.Semaphore(limit)

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """As the engine's.

    Raises:
      DeadlineExceededError: no place was free before the deadline.
    """
    await deadline_lib.within(
      self._places.acquire(), context.deadline, f"the {context.role}'s place"
    )
    try:
      return await self._engine.generate(messages, sampling, context)
    finally:
      self._places.release()


class CircuitBreaker:
  """Leaves a host alone that failed `failures` times in a row.

  Closed: calls go through. Open: they fail at once, for `pause_s`. Then half
  open: one call is let through, and its outcome closes the circuit or opens
  it again. Answers, refusals and prompts that are too long show that the host
  is up. A call that was cancelled at its deadline counts as a failure, one
  that was cancelled before does not count.
  """

  def __init__(self, engine: engine_lib.Engine, failures: int, pause_s: float):
    self._engine = engine
    self._limit = failures
    self._pause_s = pause_s
    self._failures = 0
    self._open_until_s = 0.0  # monotonic; only read while open
    self._testing = False
    self._counts = {"circuit_opened": 0.0, "circuit_refused": 0.0}

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """How often the circuit opened and how many calls it turned away."""
    counts = dict(self._counts)
    if reset:
      self._counts = dict.fromkeys(self._counts, 0.0)
    return counts

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """As the engine's.

    Raises:
      CircuitOpenError: the host was not asked.
    """
    testing = self._failures >= self._limit
    if testing:
      self._refuse_unless_due()
      self._testing = True
    try:
      completion = await self._engine.generate(messages, sampling, context)
    except (errors.RequestRefusedError, errors.PromptTooLongError):
      self._failures = 0
      raise
    except errors.InfrastructureError:
      self._count_failure()
      raise
    except asyncio.CancelledError:
      if context.deadline.passed:
        self._count_failure()
      raise
    finally:
      if testing:
        self._testing = False
    self._failures = 0
    return completion

  def _refuse_unless_due(self) -> None:
    wait_s = self._open_until_s - time.monotonic()
    if wait_s <= 0 and not self._testing:
      return
    self._counts["circuit_refused"] += 1
    raise errors.CircuitOpenError(
      f"the host failed {self._failures} times in a row and is left alone",
      retry_after_s=max(0.0, wait_s),
    )

  def _count_failure(self) -> None:
    self._failures += 1
    if self._failures < self._limit:
      return
    self._open_until_s = time.monotonic() + self._pause_s
    self._counts["circuit_opened"] += 1
    logging.warning(
      "%d failures in a row; no further calls for %g s",
      self._failures,
      self._pause_s,
    )
