"""run_groups: bugs propagate, cancellation cancels, nothing is left behind."""

import asyncio

import pytest
import rollout_fakes

from agentflow_jax.rollout import group_rollout


@pytest.mark.parametrize("where", ["run_one", "reward_fn", "on_trajectory"])
def test_a_bug_propagates_and_cancels_the_rest(where):
  unwound = []

  def maybe(place, member):
    if place == where and member == 1:
      raise KeyError("bug")

  async def run_one(task, member):
    maybe("run_one", member)
    if member == 3:
      try:
        await asyncio.Event().wait()
      finally:
        unwound.append(task.id)
    return rollout_fakes.trajectory(task, member)

  async def reward_fn(trajectory):
    maybe("reward_fn", trajectory.member)
    return 1.0

  with pytest.raises(KeyError, match="bug"):
    rollout_fakes.rollout(
      run_one,
      reward_fn,
      tasks=2,
      max_concurrent_episodes=100,
      on_trajectory=lambda t: maybe("on_trajectory", t.member),
    )
  assert unwound == ["q0", "q1"]


def test_a_bug_does_not_wait_for_the_deadline():
  async def run_one(task, member):
    if member == 1:
      raise KeyError("bug")
    await asyncio.Event().wait()
    return rollout_fakes.trajectory(task, member)

  async def main():
    with pytest.raises(KeyError):
      await group_rollout.run_groups(
        [rollout_fakes.task(0)],
        run_one,
        rollout_fakes.one,
        group_size=2,
        max_concurrent_episodes=2,
        timeout_s=30.0,
      )
    assert asyncio.get_running_loop().time() < 1

  rollout_fakes.run(main())


def test_a_bug_while_unwinding_propagates():
  async def run_one(task, member):
    del task, member
    try:
      await asyncio.Event().wait()
    finally:
      raise KeyError("bug in clean-up")

  with pytest.raises(KeyError, match="clean-up"):
    rollout_fakes.rollout(run_one, tasks=1, timeout_s=0.05)


def test_cancelling_the_caller_cancels_every_episode():
  entered, unwound = [], []

  async def run_one(task, member):
    entered.append((task.id, member))
    try:
      await asyncio.Event().wait()
    finally:
      await asyncio.sleep(0)
      unwound.append((task.id, member))
    return rollout_fakes.trajectory(task, member)

  async def main():
    caller = asyncio.create_task(
      group_rollout.run_groups(
        [rollout_fakes.task(0), rollout_fakes.task(1)],
        run_one,
        rollout_fakes.one,
        group_size=3,
        max_concurrent_episodes=4,
        timeout_s=30.0,
      )
    )
    while len(entered) < 4:
      await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
      await caller
    assert asyncio.all_tasks() == {asyncio.current_task()}

  rollout_fakes.run(main())
  assert sorted(unwound) == sorted(entered)
  assert len(entered) == 4


def test_a_cancellation_from_inside_is_a_bug_not_data():
  async def run_one(task, member):
    future = asyncio.get_running_loop().create_future()
    if member == 1:
      future.cancel()
      await future
    return rollout_fakes.trajectory(task, member)

  with pytest.raises(RuntimeError, match="q0/1 was cancelled from inside"):
    rollout_fakes.rollout(run_one, tasks=1)


def test_an_episode_that_ignores_cancellation_is_reported():
  release = []

  async def run_one(task, member):
    while not release:
      try:
        await asyncio.sleep(1)
      except asyncio.CancelledError:
        continue
    return rollout_fakes.trajectory(task, member)

  async def main():
    with pytest.raises(RuntimeError, match="ignore cancellation"):
      await group_rollout.run_groups(
        [rollout_fakes.task(0)],
        run_one,
        rollout_fakes.one,
        group_size=1,
        max_concurrent_episodes=1,
        timeout_s=0.05,
      )
    release.append(True)

  rollout_fakes.run(main())


def test_a_trajectory_of_another_member_is_a_bug():
  async def run_one(task, member):
    return rollout_fakes.trajectory(task, member + 1)

  with pytest.raises(ValueError, match="asked for q0/0"):
    rollout_fakes.rollout(run_one, tasks=1)


@pytest.mark.parametrize("name", ["group_size", "max_concurrent_episodes"])
def test_sizes_below_one_are_refused(name):
  with pytest.raises(ValueError, match=name):
    rollout_fakes.rollout(**{name: 0})
