"""The groups of one iteration: which tasks, how often, from which position.

Flow: position in the task order -> tasks -> run_groups -> TrajectoryGroups.
With `learner.refill_rounds`, groups that turn out to have nothing to compare
are followed by groups of the next tasks (dynamic sampling; DAPO, arXiv
2503.14476), a bounded number of times; all of them are kept and counted.

The only state is the position, an integer that the checkpoint saves.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.rollout import group_rollout, leak_audit
from agentflow_jax.tasks import order as order_lib

# (task, member, iteration) -> the unscored trajectory of a training episode.
RunTraining = Callable[
  [task_lib.Task, int, int], Awaitable[trajectory_lib.Trajectory]
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
  """What one iteration trains on, and where the next one goes on."""

  groups: tuple[trajectory_lib.TrajectoryGroup, ...]
  position: int
  refilled: int  # groups added for others without spread
  # What engines and tools counted in this rollout.
  host_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def trajectories(self) -> list[trajectory_lib.Trajectory]:
    return [t for group in self.groups for t in group.trajectories]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRunner:
  """Draws tasks in order and runs their groups."""

  source: protocols.TaskSource
  order: order_lib.TaskOrder
  run_one: RunTraining
  reward_fn: protocols.RewardFn
  config: config_lib.Config
  # Counters since they were last asked for.
  host_metrics: Callable[[], dict[str, float]] = dict

  async def run(self, iteration: int, position: int) -> Rollout:
    """Runs the groups of one iteration.

    Args:
      iteration: part of every sampling key.
      position: the first task to draw.
    """
    self.host_metrics()  # an evaluation's, if one came in between
    drawn, position = self._draw(position, self._tasks)
    groups = await self._run_groups(iteration, drawn)
    for _ in range(self.config.learner.refill_rounds):
      wanted = self._tasks - sum(map(has_spread, groups))
      more, position = self._draw(position, wanted, drawn)
      if not more:
        break
      groups += await self._run_groups(iteration, more)
      drawn += more
    return Rollout(
      groups=tuple(groups),
      position=position,
      refilled=len(groups) - min(self._tasks, len(self.source)),
      host_metrics=self.host_metrics(),
    )

  @property
  def _tasks(self) -> int:
    return self.config.rollout.tasks

  def _draw(
    self, position: int, count: int, drawn: Sequence[int] = ()
  ) -> tuple[list[int], int]:
    """The next tasks but for those `drawn`, and where to go on.

    An iteration asks a task once: its sampling keys would be the same again.
    After a refill positions are no multiples of the batch, so the order alone
    does not see to it.
    """
    found: list[int] = []
    count = min(count, len(self.source) - len(drawn))
    while len(found) < count:
      (index,) = self.order.indices(position, 1)
      position += 1
      if index not in found and index not in drawn:
        found.append(index)
    return found, position

  async def _run_groups(
    self, iteration: int, indices: Sequence[int]
  ) -> list[trajectory_lib.TrajectoryGroup]:
    rollout = self.config.rollout
    return await group_rollout.run_groups(
      [self.source[index] for index in indices],
      lambda task, member: self.run_one(task, member, iteration),
      self.reward_fn,
      group_size=rollout.group_size,
      max_concurrent_episodes=rollout.max_concurrent_episodes,
      timeout_s=rollout.timeout_s,
      min_group=rollout.min_group,
    )


def has_spread(group: trajectory_lib.TrajectoryGroup) -> bool:
  """True if two valid members have different rewards."""
  return len({t.reward for t in group.valid}) > 1


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
  """What the trajectories of one iteration show."""
  trajectories = rollout.trajectories
  summary = scores.summarise(
    trajectories,
    members=len(rollout.groups[0].trajectories),
    resamples=0,
  )
  planner_tokens = sum(
    len(completion.token_ids)
    for trajectory in rollout.trajectories
    for turn in trajectory.turns
    for completion in [turn.module_calls[0].completion]
  )
  rewards: dict[str, list[float]] = {}
  for trajectory in rollout.trajectories:
    if trajectory.reward is not None and trajectory.task.family:
      rewards.setdefault(trajectory.task.family, []).append(trajectory.reward)
  valid = [r.reward for r in rollout.trajectories if r.reward is not None]
  return (
    {
      "reward": sum(valid) / max(1, len(valid)),
      "turns": summary["mean_turns"],
      "tool_error_rate": summary["tool_error_rate"],
      "parse_failure_rate": summary["parse_failure_rate"],
      "verdict_failure_rate": summary["verdict_failure_rate"],
      "completion_tokens": summary["completion_tokens"],
      "planner_tokens": float(planner_tokens),
      "refilled_groups": float(rollout.refilled),
      "lost_groups": float(sum(not group.valid for group in rollout.groups)),
    }
    | {
      f"flagged/{flag}": float(sum(flag in t.flags for t in trajectories))
      for flag in leak_audit.FLAGS
    }
    | dict(rollout.host_metrics)
    | {
      f"reward/{name}": sum(values) / len(values)
      for name, values in sorted(rewards.items())
    }
    | {f"tool_mix/{n}": share for n, share in summary["tool_mix"].items()}
    | {f"stop/{n}": float(c) for n, c in summary["stop_reasons"].items()}
  )
