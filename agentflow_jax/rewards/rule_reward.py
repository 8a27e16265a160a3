"""RuleReward: 1 for a right final answer, 0 for a wrong or empty one.

Flow: trajectory -> `task.scorer` names a rule -> `answer` against the task. It
looks at nothing else: not at the turns, not at how the answer was found, but
for the rules that score searches (rewards/evidence.py). What infrastructure
broke is not its business (a masked trajectory is not scored).
"""

import asyncio
from collections.abc import Iterable

from agentflow_jax.core import errors
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import registry


class RuleReward:
  """Implements core RewardFn with the scorers of the registry.

  Example: `await RuleReward(["exact_match"])(trajectory)` is 1.0 for the answer
  "Vientiane" to a task whose answers are ("Vientiane",).
  """

  def __init__(self, scorers: Iterable[str]):
    """Looks the rules up, so that a misspelt one stops the run at its start.

    Args:
      scorers: every `Task.scorer` that will be asked for.

    Raises:
      ConfigError: there is no such scorer.
    """
    names = sorted(set(scorers))
    unknown = [name for name in names if name not in registry.NAMES]
    if unknown:
      raise errors.ConfigError(
        f"there is no scorer {unknown[0]!r}; "
        f"known are {', '.join(sorted(registry.NAMES))}"
      )
    self._names = names

  async def __call__(self, trajectory: trajectory_lib.Trajectory) -> float:
    """1.0 or 0.0; between them for a scorer that gives parts ("qa_f1").

    Raises:
      RewardError: the scorer's own machinery failed.
      ConfigError: the task names a scorer the reward was not built with.
    """
    task = trajectory.task
    if task.scorer not in self._names:
      raise errors.ConfigError(
        f"task {task.id!r} names the scorer {task.scorer!r}; this reward was "
        f"built for {', '.join(self._names) or 'none'}"
      )
    if task.scorer in registry.TRAJECTORY_SCORERS:
      return registry.TRAJECTORY_SCORERS[task.scorer](trajectory)
    scorer = registry.SCORERS[task.scorer]
    if task.scorer in registry.BLOCKING:
      return await asyncio.to_thread(scorer, trajectory.answer, task)
    return scorer(trajectory.answer, task)
