"""RolloutAhead: the rollout of the next iteration, begun before its turn.

At most one rollout runs at a time. It begins when it is its turn, or, in the
asynchronous mode, as a task beside the update before it; the loop then takes
the result. It holds no parameters: whoever starts a rollout has given the
sampler the weights, and changes them only after `take` or `settle`.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Mapping

from absl import logging

from agentflow_jax.training import rollouts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
  """A rollout, and what it took."""

  rollout: rollouts.Rollout
  sampling: Mapping[str, float]  # what the sampler counted in it
  seconds: float  # from its first episode to its last reward


class RolloutAhead:
  """Runs rollouts one after the other, one of them ahead.

  Example:
    ahead = RolloutAhead(runner, lambda: sampler.metrics(reset=True))
    first = await ahead.take(1, 0)
    ahead.start(2, first.rollout.position)
    ...                                     # an update, in a thread
    second = await ahead.take(2, first.rollout.position)
  """

  def __init__(
    self,
    runner: rollouts.RolloutRunner,
    sampler_metrics: Callable[[], Mapping[str, float]],
  ):
    """
    Args:
      runner: of the run.
      sampler_metrics: what the sampler counted since it was last asked.
    """
    self._runner = runner
    self._sampler_metrics = sampler_metrics
    self._due: tuple[int, int] | None = None  # of the task
    self._task: asyncio.Task[Finished] | None = None
    self._started_s = self._ended_s = 0.0  # of the last rollout

  def start(self, iteration: int, position: int) -> None:
    """Begins the rollout of `iteration` at once.

    Raises:
      RuntimeError: another one has not been taken.
    """
    if self._task is not None:
      raise RuntimeError(f"rollout {self._due} was never taken")
    self._due = (iteration, position)
    self._started_s, self._ended_s = time.monotonic(), math.inf
    self._task = asyncio.create_task(
      self._run(iteration, position), name=f"rollout {iteration}"
    )

  async def take(self, iteration: int, position: int) -> Finished:
    """The rollout of `iteration`, begun now if it was not started.

    Args:
      iteration: part of every sampling key.
      position: in the task order, where the rollout before it ended.

    Raises:
      RuntimeError: another one was started.
      Exception: the bug that ended the rollout.
    """
    if self._task is None:
      return await self._run(iteration, position)
    if self._due != (iteration, position):
      raise RuntimeError(
        f"rollout {self._due} is under way, not {(iteration, position)}"
      )
    task, self._task = self._task, None
    return await task

  async def settle(self) -> None:
    """Waits until nothing is being sampled; the result stays to be taken."""
    if self._task is not None:
      await self._task

  async def cancel(self) -> None:
    """Drops the rollout that was not taken, if there is one."""
    task, self._task = self._task, None
    if task is None:
      return
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, Exception):  # nobody else will see it
      logging.error("%s failed: %r", task.get_name(), outcome)

  def ran_s(self) -> float:
    """Seconds that the rollout that was started has run so far, or ran."""
    if self._task is None:
      return 0.0
    return min(time.monotonic(), self._ended_s) - self._started_s

  async def _run(self, iteration: int, position: int) -> Finished:
    self._started_s, self._ended_s = time.monotonic(), math.inf
    try:
      rollout = await self._runner.run(iteration, position)
      # Now, before an evaluation adds to them.
      sampling = self._sampler_metrics()
    finally:
      self._ended_s = time.monotonic()
    return Finished(
      rollout=rollout,
      sampling=sampling,
      seconds=self._ended_s - self._started_s,
    )
