"""Which tasks an iteration asks, how often, and where the next one goes on."""

import asyncio

import pytest
from loop_parts import STOP, TASKS, make_config, make_trajectory

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks import order as order_lib
from agentflow_jax.training import rollouts


class Runner:
  """A RolloutRunner over `TASKS`; groups of the tasks in `spread` have one."""

  def __init__(self, spread=(), tasks=2, refill_rounds=0, source=TASKS):
    config = make_config(
      rollout__tasks=tasks, learner__refill_rounds=refill_rounds
    )
    self.asked: list[tuple[str, int, int]] = []
    self.order = order_lib.TaskOrder(len(source), seed=0, batch_size=tasks)

    async def run_one(task, member, iteration):
      await asyncio.sleep(0)
      self.asked.append((task.id, member, iteration))
      return make_trajectory(task, member)

    async def reward_fn(trajectory):
      has = spread == "all" or trajectory.task.id in spread
      return float(has and trajectory.member == 1)

    self._runner = rollouts.RolloutRunner(
      source=source,
      order=self.order,
      run_one=run_one,
      reward_fn=reward_fn,
      config=config,
    )

  def run(self, iteration=1, position=0) -> rollouts.Rollout:
    return asyncio.run(self._runner.run(iteration, position))

  def ids(self, position, count) -> list[str]:
    return [TASKS[i].id for i in self.order.indices(position, count)]


def test_groups_are_the_tasks_at_the_position_in_order():
  runner = Runner("all")
  found, position = [], 0
  for iteration in (1, 2, 3, 4):
    rollout = runner.run(iteration, position)
    found += [group.task.id for group in rollout.groups]
    assert rollout.refilled == 0
    position = rollout.position
  assert position == 8
  assert found == runner.ids(0, 8)
  assert sorted(found[:6]) == sorted(task.id for task in TASKS)
  assert {i for _, _, i in runner.asked} == {1, 2, 3, 4}


def test_members_are_in_order_and_all_are_there():
  rollout = Runner("all").run()
  assert [(t.task.id, t.member) for t in rollout.trajectories] == [
    (group.task.id, member) for group in rollout.groups for member in range(3)
  ]


def test_a_position_gives_the_same_groups_again():
  runner = Runner("all")
  first = [g.task.id for g in runner.run(3, 4).groups]
  assert [g.task.id for g in Runner("all").run(3, 4).groups] == first


def test_nothing_is_refilled_unless_asked():
  rollout = Runner(()).run()
  assert (len(rollout.groups), rollout.position, rollout.refilled) == (2, 2, 0)


def test_refills_are_bounded_and_all_groups_are_kept():
  runner = Runner((), refill_rounds=2)
  rollout = runner.run()
  assert [g.task.id for g in rollout.groups] == runner.ids(0, 6)
  assert (rollout.position, rollout.refilled) == (6, 4)
  assert len(runner.asked) == 18


def test_only_what_is_missing_is_refilled():
  order = order_lib.TaskOrder(len(TASKS), seed=0, batch_size=3)
  first, second, third, fourth, fifth = (
    TASKS[i].id for i in order.indices(0, 5)
  )
  # Two of three lack spread, then one of two, then none.
  runner = Runner((second, fourth, fifth), tasks=3, refill_rounds=9)
  rollout = runner.run()
  ids = [g.task.id for g in rollout.groups]
  assert ids == [first, second, third, fourth, fifth]
  assert (rollout.position, rollout.refilled) == (5, 2)


@pytest.mark.parametrize("position", range(12))
def test_an_iteration_never_asks_a_task_twice(position):
  """Equal keys would draw equal tokens, and the record would be ambiguous."""
  runner = Runner((), tasks=3, refill_rounds=1)
  rollout = runner.run(1, position)
  ids = [group.task.id for group in rollout.groups]
  assert len(ids) == 6
  assert sorted(ids) == sorted(task.id for task in TASKS)
  assert rollout.position >= position + 6


def test_refilling_ends_when_every_task_was_asked():
  runner = Runner((), tasks=2, refill_rounds=16)
  rollout = runner.run()
  assert len(rollout.groups) == len(TASKS)
  assert rollout.refilled == len(TASKS) - 2


def test_spread_is_that_of_the_members_that_count():
  def group(*members):
    return trajectory_lib.TrajectoryGroup(
      task=TASKS[0],
      trajectories=tuple(
        make_trajectory(TASKS[0], index, reward=reward, stop_reason=reason)
        for index, (reward, reason) in enumerate(members)
      ),
    )

  ended, lost = STOP.VERIFIED, STOP.INFRA_ERROR
  assert rollouts.has_spread(group((1.0, ended), (0.0, ended)))
  assert not rollouts.has_spread(group((1.0, ended), (1.0, ended)))
  assert not rollouts.has_spread(group((1.0, ended), (None, lost)))
  # Never scored, and scored although it was lost: neither counts.
  assert not rollouts.has_spread(group((1.0, ended), (None, ended)))
  assert not rollouts.has_spread(group((1.0, ended), (0.0, lost)))
  assert not rollouts.has_spread(group((1.0, ended)))
  assert not rollouts.has_spread(group((None, lost), (None, STOP.TIMEOUT)))
  assert rollouts.has_spread(group((0.5, ended), (None, lost), (0.0, ended)))
