"""Runs G episodes for each task at once and scores them.

Flow: tasks x members -> `run_one` under a first-in-first-out limit -> reward
-> TrajectoryGroup, in task order. One deadline covers the whole call: what is
not finished by then is cancelled and becomes a masked trajectory, so that a
slow tool costs its own trajectory and never the iteration.

What failed for a reason of hosts or networks (`InfrastructureError`) masks
one trajectory. Any other exception is a bug: everything is cancelled and it
propagates, because a bug must not become data. Nothing outlives the call.

It does not retry (engines and tools do) and knows nothing of agents.
"""

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Sequence

from absl import logging

from agentflow_jax.core import errors, protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import leak_audit

Task = task_lib.Task
Trajectory = trajectory_lib.Trajectory
RunOne = Callable[[Task, int], Awaitable[Trajectory]]

# A cancelled episode only has to unwind; longer means it ignores cancellation.
_CANCEL_GRACE_S = 30.0


async def run_groups(
  tasks: Sequence[Task],
  run_one: RunOne,
  reward_fn: protocols.RewardFn,
  *,
  group_size: int,
  max_concurrent_episodes: int,
  timeout_s: float,
  min_group: int = 1,
  on_trajectory: Callable[[Trajectory], None] | None = None,
) -> list[trajectory_lib.TrajectoryGroup]:
  """Runs and scores `group_size` episodes of every task.

  Episodes start in order (all members of the first task, then the next), so
  that members that share a prompt run side by side. An episode's place is
  free again before its reward is computed.

  Args:
    tasks: one group each; the result keeps their order.
    run_one: runs member 0..group_size-1 of a task; its trajectory must carry
      that task and member.
    reward_fn: scores a trajectory that is not masked already.
    group_size: members per task, at least 1.
    max_concurrent_episodes: episodes that run at the same time.
    timeout_s: seconds from this call until what is left is cancelled.
    min_group: with fewer members left by failures, a group is masked whole: a
      few lucky survivors say little about the task.
    on_trajectory: told of each trajectory as soon as it has its reward.

  Raises:
    ValueError: a size below 1, or a trajectory of another task or member.
    RuntimeError: an episode was cancelled from inside, or does not end when
      it is cancelled.
    Exception: whatever bug `run_one`, `reward_fn` or `on_trajectory` raised.
  """
  _check_sizes(group_size, max_concurrent_episodes)
  rollout = _Rollout(
    run_one=run_one,
    reward_fn=reward_fn,
    on_trajectory=on_trajectory or (lambda trajectory: None),
    places=asyncio.Semaphore(max_concurrent_episodes),
  )
  members = range(group_size)
  running = {
    (index, member): rollout.start((index, member), task)
    for index, task in enumerate(tasks)
    for member in members
  }
  await _until(list(running.values()), timeout_s)
  for (index, member), episode in running.items():
    if episode.cancelled():
      rollout.give_up((index, member), tasks[index], timeout_s)
  groups = [
    trajectory_lib.TrajectoryGroup(
      task=task,
      trajectories=tuple(rollout.final[index, member] for member in members),
    )
    for index, task in enumerate(tasks)
  ]
  return [_viable(group, min_group) for group in groups]


def _check_sizes(group_size: int, max_concurrent_episodes: int) -> None:
  if group_size < 1 or max_concurrent_episodes < 1:
    raise ValueError(
      f"group_size={group_size} and max_concurrent_episodes="
      f"{max_concurrent_episodes} must be at least 1"
    )


def _viable(
  group: trajectory_lib.TrajectoryGroup, min_group: int
) -> trajectory_lib.TrajectoryGroup:
  """The group as it is, or all of it masked."""
  left = len(group.valid)
  if left >= min_group or not left:
    return group
  failure = (
    f"only {left} of {len(group.trajectories)} members are left, a group "
    f"needs {min_group}"
  )
  logging.warning("%s masked: %s", group.task.id, failure)
  return dataclasses.replace(
    group,
    trajectories=tuple(
      trajectory
      if trajectory.masked
      else trajectory.replace_reward(None, failure)
      for trajectory in group.trajectories
    ),
  )


@dataclasses.dataclass(kw_only=True)
class _Rollout:
  """One call of `run_groups`; keys are (index of the task, member)."""

  run_one: RunOne
  reward_fn: protocols.RewardFn
  on_trajectory: Callable[[Trajectory], None]
  places: asyncio.Semaphore
  unscored: dict[tuple[int, int], Trajectory] = dataclasses.field(
    default_factory=dict
  )
  final: dict[tuple[int, int], Trajectory] = dataclasses.field(
    default_factory=dict
  )

  def start(self, slot: tuple[int, int], task: Task) -> asyncio.Task[None]:
    return asyncio.create_task(
      self._member(slot, task), name=f"episode {task.id}/{slot[1]}"
    )

  async def _member(self, slot: tuple[int, int], task: Task) -> None:
    """Runs and scores one episode; its result is `final[slot]`."""
    try:
      async with self.places:
        trajectory = await self._run(task, slot[1])
      self.unscored[slot] = trajectory
      self._finish(slot, await self._score(trajectory))
    except asyncio.CancelledError as error:
      current = asyncio.current_task()
      if current is not None and current.cancelling():
        raise  # the deadline's or the caller's doing
      raise RuntimeError(
        f"{task.id}/{slot[1]} was cancelled from inside; what it awaited "
        "should have raised an InfrastructureError"
      ) from error

  def give_up(
    self, slot: tuple[int, int], task: Task, timeout_s: float
  ) -> None:
    """Masks what the deadline cut off, keeping turns that are complete."""
    trajectory = self.unscored.get(slot)
    what = "the episode" if trajectory is None else "the reward"
    failure = f"{what} did not finish within the rollout's {timeout_s:g} s"
    stop_reason = trajectory_lib.StopReason.TIMEOUT
    if trajectory is None:
      trajectory = _lost(task, slot[1], stop_reason, failure)
    self._finish(
      slot,
      dataclasses.replace(
        trajectory, stop_reason=stop_reason, failure=failure, reward=None
      ),
    )

  def _finish(self, slot: tuple[int, int], trajectory: Trajectory) -> None:
    self.final[slot] = trajectory = leak_audit.flagged(trajectory)
    self.on_trajectory(trajectory)

  async def _run(self, task: Task, member: int) -> Trajectory:
    try:
      trajectory = await self.run_one(task, member)
    except errors.InfrastructureError as error:
      failure = _describe(error)
      logging.warning("%s/%d masked: %s", task.id, member, failure)
      return _lost(task, member, trajectory_lib.StopReason.INFRA_ERROR, failure)
    if trajectory.task != task or trajectory.member != member:
      raise ValueError(
        f"asked for {task.id}/{member}, got a trajectory of "
        f"{trajectory.task.id}/{trajectory.member}"
      )
    return trajectory

  async def _score(self, trajectory: Trajectory) -> Trajectory:
    if trajectory.stop_reason.masked:
      return dataclasses.replace(trajectory, reward=None)
    try:
      reward = await self.reward_fn(trajectory)
    except errors.InfrastructureError as error:
      failure = f"no reward: {_describe(error)}"
    else:
      if math.isfinite(reward):
        return trajectory.replace_reward(reward)
      # One bad number would poison the statistics of the whole group.
      failure = f"no reward: it is {reward}"
    logging.warning(
      "%s/%d masked: %s", trajectory.task.id, trajectory.member, failure
    )
    return trajectory.replace_reward(None, failure)


async def _until(running: Sequence[asyncio.Task], timeout_s: float) -> None:
  """Waits for all; whatever happens, none of them runs afterwards.

  What is still running at the deadline ends up cancelled.

  Raises:
    Exception: the first bug of the first task that has one.
  """
  try:
    if running:
      await asyncio.wait(
        running,
        timeout=None if math.isinf(timeout_s) else timeout_s,
        return_when=asyncio.FIRST_EXCEPTION,
      )
    _raise_bugs(running)
  finally:
    await _cancel(running)
  _raise_bugs(running)  # what unwinding brought up


def _raise_bugs(running: Sequence[asyncio.Task]) -> None:
  for episode in running:
    if episode.done() and not episode.cancelled():
      episode.result()


async def _cancel(running: Sequence[asyncio.Task]) -> None:
  """Cancels what still runs and waits until it has unwound."""
  pending = [episode for episode in running if not episode.done()]
  for episode in pending:
    episode.cancel()
  if pending:
    _, stuck = await asyncio.wait(pending, timeout=_CANCEL_GRACE_S)
    if stuck:
      names = sorted(episode.get_name() for episode in stuck)
      raise RuntimeError(
        f"{len(stuck)} episodes ignore cancellation, among them {names[0]}"
      )
  for episode in running:
    if not episode.cancelled():
      episode.exception()  # only one bug is raised; the others count as seen


def _lost(
  task: Task, member: int, reason: trajectory_lib.StopReason, failure: str
) -> Trajectory:
  """The record of an episode of which nothing is left."""
  return Trajectory(
    task=task,
    member=member,
    turns=(),
    answer="",
    outputs=(),
    stop_reason=reason,
    policy_version=-1,
    failure=failure,
  )


def _describe(error: Exception) -> str:
  return f"{type(error).__name__}: {error}"
