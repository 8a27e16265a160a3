"""RetryingEngine: a limit per try and retries around any engine.

Retries exactly the infrastructure failures (`EngineError`,
`DeadlineExceededError`) but `RequestRefusedError`, with exponential back-off
and jitter, no sooner than the host asked for and never past the caller's
deadline. Every try carries the same call context but for its
deadline, so a retried call samples the tokens the first try would have
sampled. `PromptTooLongError` and bugs travel on at once.
"""

import asyncio
import random
from collections.abc import Sequence

from absl import logging

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib

_MAX_DELAY_S = 8.0

# A generator of its own: sampling keys come from the call context, and the
# global generator may be seeded by somebody who counts on it.
_jitter = random.Random()


class RetryingEngine:
  """Implements core `Engine` around another one.

  Args:
    engine: who answers.
    retries: further tries after a failure.
    timeout_s: limit of one try; the context's deadline still holds for all.
    first_delay_s: before the first retry; doubles each time, at most 8 s, and
      is multiplied by a random factor in [0.5, 1].
  """

  def __init__(
    self,
    engine: engine_lib.Engine,
    retries: int,
    timeout_s: float,
    *,
    first_delay_s: float = 0.25,
  ):
    self._engine = engine
    self._retries = retries
    self._timeout_s = timeout_s
    self._first_delay_s = first_delay_s
    self._counts: dict[str, float] = {"calls": 0, "retries": 0, "failures": 0}

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """Calls, retries made, and calls that failed after all tries."""
    counts = dict(self._counts)
    if reset:
      self._counts = dict.fromkeys(self._counts, 0)
    return counts

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """The first answer that a try gives.

    Raises:
      EngineError: the last try failed.
      DeadlineExceededError: the last try ran into its limit or the deadline.
      RequestRefusedError, PromptTooLongError: not retried.
    """
    self._counts["calls"] += 1
    tries = 0
    while True:
      try:
        return await self._one_try(messages, sampling, context)
      except errors.RequestRefusedError:
        self._counts["failures"] += 1
        raise
      except (errors.EngineError, errors.DeadlineExceededError) as error:
        tries += 1
        delay_s = self._delay_s(tries, error)
        if tries > self._retries or delay_s >= context.deadline.remaining_s():
          self._counts["failures"] += 1
          raise _after(tries, error) from error
        logging.warning(
          "%s call failed (try %d of %d): %s",
          context.role,
          tries,
          self._retries + 1,
          error,
        )
      self._counts["retries"] += 1
      await asyncio.sleep(delay_s)

  def _delay_s(self, tries: int, error: errors.InfrastructureError) -> float:
    """Before the next try; what a host asks for comes on top.

    On top, so that the calls a busy host turned away at the same moment do not
    come back at the same moment.
    """
    delay_s = min(_MAX_DELAY_S, self._first_delay_s * 2 ** (tries - 1))
    delay_s *= _jitter.uniform(0.5, 1.0)
    return delay_s + getattr(error, "retry_after_s", 0.0)

  async def _one_try(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    deadline = context.deadline.sooner(self._timeout_s)
    return await deadline_lib.within(
      self._engine.generate(messages, sampling, context.at(deadline=deadline)),
      deadline,
      f"the {context.role} call",
    )


def _after(
  tries: int, error: errors.InfrastructureError
) -> errors.InfrastructureError:
  if isinstance(error, errors.DeadlineExceededError):
    kind = errors.DeadlineExceededError
  else:
    kind = errors.EngineError
  return kind(f"{error} (after {tries} {'try' if tries == 1 else 'tries'})")
