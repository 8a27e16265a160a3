"""run_groups: order, bounds, masking and deadlines."""

import asyncio
import subprocess
import sys

import pytest
import rollout_fakes

from agentflow_jax.core import errors
from agentflow_jax.core import trajectory as trajectory_lib

StopReason = trajectory_lib.StopReason


def test_groups_keep_the_order_of_tasks_and_members():
  async def run_one(task, member):
    # Later tasks and members finish first.
    for _ in range(50 - 10 * int(task.id[1:]) - member):
      await asyncio.sleep(0)
    return rollout_fakes.trajectory(task, member)

  async def reward_fn(trajectory):
    return float(trajectory.member)

  groups = rollout_fakes.rollout(
    run_one, reward_fn, max_concurrent_episodes=100
  )
  assert [group.task.id for group in groups] == ["q0", "q1", "q2"]
  for group in groups:
    assert [t.member for t in group.trajectories] == [0, 1, 2, 3]
    assert [t.reward for t in group.trajectories] == [0.0, 1.0, 2.0, 3.0]
    assert all(t.task == group.task for t in group.trajectories)
    assert len(group.valid) == 4


def test_episodes_start_in_order_and_never_exceed_the_limit():
  started, running, most = [], 0, 0

  async def run_one(task, member):
    nonlocal running, most
    started.append((task.id, member))
    running += 1
    most = max(most, running)
    for _ in range(3 + member):
      await asyncio.sleep(0)
    running -= 1
    return rollout_fakes.trajectory(task, member)

  rollout_fakes.rollout(run_one, tasks=4, max_concurrent_episodes=3)
  assert started == [(f"q{t}", m) for t in range(4) for m in range(4)]
  assert most == 3


def test_a_slow_reward_does_not_hold_an_episodes_place():
  release = asyncio.Event()
  started = []

  async def run_one(task, member):
    started.append(member)
    if len(started) == 4:
      release.set()
    return rollout_fakes.trajectory(task, member)

  async def reward_fn(trajectory):
    del trajectory
    await release.wait()
    return 1.0

  (group,) = rollout_fakes.rollout(
    run_one, reward_fn, tasks=1, max_concurrent_episodes=1
  )
  assert len(group.valid) == 4


def test_the_deadline_masks_what_is_not_finished():
  finals = []

  async def run_one(task, member):
    if member == 1:
      await asyncio.Event().wait()
    return rollout_fakes.trajectory(task, member)

  groups = rollout_fakes.rollout(
    run_one,
    timeout_s=0.1,
    max_concurrent_episodes=100,
    on_trajectory=finals.append,
  )
  for group in groups:
    lost = group.trajectories[1]
    assert lost.stop_reason == StopReason.TIMEOUT
    assert lost.masked
    assert lost.reward is None
    assert "0.1 s" in lost.failure
    assert lost.policy_version == -1
    assert [t.member for t in group.valid] == [0, 2, 3]
  assert len(finals) == 12
  assert sum(t.masked for t in finals) == 3


def test_the_deadline_masks_episodes_that_never_started():
  calls = []

  async def run_one(task, member):
    calls.append((task.id, member))
    await asyncio.Event().wait()

  groups = rollout_fakes.rollout(
    run_one, timeout_s=0.05, max_concurrent_episodes=2
  )
  assert calls == [("q0", 0), ("q0", 1)]
  reasons = {t.stop_reason for g in groups for t in g.trajectories}
  assert reasons == {StopReason.TIMEOUT}


def test_a_reward_that_misses_the_deadline_masks_but_keeps_the_episode():
  async def reward_fn(trajectory):
    if trajectory.member == 2:
      await asyncio.Event().wait()
    return 1.0

  (group,) = rollout_fakes.rollout(
    rollout_fakes.answer, reward_fn, tasks=1, timeout_s=0.1
  )
  late = group.trajectories[2]
  assert (late.answer, late.policy_version) == ("q0/2", 3)
  assert late.stop_reason == StopReason.TIMEOUT
  assert "the reward did not finish" in late.failure
  assert [t.member for t in group.valid] == [0, 1, 3]


@pytest.mark.parametrize(
  "error", [errors.RewardError("judge down"), errors.EngineError("judge gone")]
)
def test_a_failed_reward_masks_one_trajectory(error):
  async def reward_fn(trajectory):
    if trajectory.member == 1:
      raise error
    return 0.0

  (group,) = rollout_fakes.rollout(rollout_fakes.answer, reward_fn, tasks=1)
  masked = group.trajectories[1]
  assert masked.stop_reason == StopReason.INFRA_ERROR
  assert masked.masked
  assert "judge" in masked.failure
  assert masked.answer == "q0/1"
  assert [t.reward for t in group.valid] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_masks_one_trajectory(number):
  async def reward_fn(trajectory):
    return number if trajectory.member == 1 else 1.0

  (group,) = rollout_fakes.rollout(rollout_fakes.answer, reward_fn, tasks=1)
  masked = group.trajectories[1]
  assert masked.stop_reason == StopReason.INFRA_ERROR
  assert masked.failure == f"no reward: it is {number}"
  assert [t.reward for t in group.valid] == [1.0, 1.0, 1.0]


def test_an_infrastructure_failure_masks_one_trajectory():
  async def run_one(task, member):
    if member == 0:
      raise errors.ToolHostError("sandbox gone")
    return rollout_fakes.trajectory(task, member)

  (group,) = rollout_fakes.rollout(run_one, tasks=1)
  assert group.trajectories[0].stop_reason == StopReason.INFRA_ERROR
  assert group.trajectories[0].failure == "ToolHostError: sandbox gone"
  assert len(group.valid) == 3


def test_a_masked_trajectory_is_not_scored():
  scored = []

  async def run_one(task, member):
    reason = StopReason.TIMEOUT if member else StopReason.MAX_TURNS
    return rollout_fakes.trajectory(
      task, member, stop_reason=reason, reward=1.0
    )

  async def reward_fn(trajectory):
    scored.append(trajectory.member)
    return 0.5

  (group,) = rollout_fakes.rollout(run_one, reward_fn, tasks=1)
  assert scored == [0]
  assert [t.reward for t in group.trajectories] == [0.5, None, None, None]


def test_no_tasks_give_no_groups():
  assert rollout_fakes.rollout(tasks=0, timeout_s=float("inf")) == []


def test_rollout_imports_without_jax():
  code = (
    "import sys\n"
    "from agentflow_jax.rollout import group_rollout, recorder\n"
    "assert 'jax' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_a_group_with_too_few_members_left_is_masked_whole():
  async def run_one(task, member):
    if (task.id, member) in {("q0", 0), ("q0", 2), ("q0", 3), ("q1", 1)}:
      raise errors.EngineError("gone")
    return rollout_fakes.trajectory(task, member)

  groups = rollout_fakes.rollout(run_one, tasks=2, min_group=3)
  assert groups[0].valid == ()
  survivor = groups[0].trajectories[1]
  assert survivor.reward is None
  assert survivor.masked
  assert survivor.failure == "only 1 of 4 members are left, a group needs 3"
  assert "gone" in groups[0].trajectories[0].failure
  assert [t.member for t in groups[1].valid] == [0, 2, 3]
  assert {t.reward for t in groups[1].valid} == {1.0}
