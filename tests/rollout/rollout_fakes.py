"""Episodes without an agent, on a clock that needs no real time."""

import asyncio
import selectors
from typing import Any

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import group_rollout


def task(index: int) -> task_lib.Task:
  return task_lib.Task(
    id=f"q{index}", question="?", answers=("a",), data_source="test"
  )


def trajectory(task, member, **changes) -> trajectory_lib.Trajectory:
  fields = {
    "task": task,
    "member": member,
    "turns": (),
    "answer": f"{task.id}/{member}",
    "outputs": (),
    "stop_reason": trajectory_lib.StopReason.VERIFIED,
    "policy_version": 3,
  }
  return trajectory_lib.Trajectory(**(fields | changes))


async def answer(task, member):
  await asyncio.sleep(0)
  return trajectory(task, member)


async def one(trajectory) -> float:
  del trajectory
  return 1.0


class _Clock(selectors.DefaultSelector):
  """A clock that jumps to the next timer, so no test depends on real time."""

  now = 0.0

  def select(self, timeout=None):
    assert timeout is not None, "everything waits for something that never is"
    self.now += timeout
    return super().select(0)


def run(main):
  """`asyncio.run` on that clock."""

  def loop():
    clock = _Clock()
    result = asyncio.SelectorEventLoop(clock)
    result.time = lambda: clock.now
    return result

  with asyncio.Runner(loop_factory=loop) as runner:
    return runner.run(main)


def rollout(run_one: Any = answer, reward_fn=one, tasks=3, **changes):
  """Runs to the end and asserts that no asyncio task is left."""
  settings = {
    "group_size": 4,
    "max_concurrent_episodes": 5,
    "timeout_s": 30.0,
  } | changes

  async def main():
    try:
      return await group_rollout.run_groups(
        [task(index) for index in range(tasks)],
        run_one,
        reward_fn,
        **settings,
      )
    finally:
      assert asyncio.all_tasks() == {asyncio.current_task()}

  return run(main())
