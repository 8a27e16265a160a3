"""256 episodes at once while engines and tools fail in seven ways.

The planner always plans rightly, so that an episode without a bad answer is
either right or masked: a reward of 0 would be infrastructure's.
"""

import asyncio
import collections
import time

import assembled_world
import faulty
import pytest

from agentflow_jax.core import providers
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.tasks.worldfacts import rules

_DEADLINE_S = 60.0
STOP = trajectory_lib.StopReason


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def _run(data_dir, faults, **settings):
  """An iteration's groups, its seconds, and what the engines counted."""
  config = assembled_world.config(
    rollout__tasks=32,
    rollout__group_size=8,
    rollout__max_concurrent_episodes=256,
    **settings,
  )
  frozen = scripted.ScriptedEngine(rules.rules())
  models = {
    "trainable": faults.engine(assembled_world.oracle()),
    providers.SCRIPTED: faults.engine(frozen),
  }

  async def main():
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, engines, toolbox, agents = parts
      for tool in toolbox.values():
        faults.break_tool(tool)
      started_s = time.monotonic()
      groups = await assembled_world.rollout(config, world, agents)
      elapsed_s = time.monotonic() - started_s
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return groups, elapsed_s, engines.metrics()

  return asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_faults_mask_and_never_score(data_dir, share):
  limits = {
    "engines__call_timeout_s": 2.0,
    "engines__retries": 1,
    "tools__call_timeout_s": 4.0,
    "tools__python_timeout_s": 0.5,
    "rollout__timeout_s": _DEADLINE_S,
  }
  before = faulty.left_over()
  faults = faulty.Faults(share, seed=3)
  groups, elapsed_s, metrics = _run(data_dir, faults, **limits)
  assert elapsed_s <= _DEADLINE_S * 1.05
  trajectories = [t for group in groups for t in group.trajectories]
  reasons = collections.Counter(t.stop_reason for t in trajectories)
  assert sum(reasons.values()) == 256
  assert set(faults.seen) == set(faulty.FAULTS)
  masked = reasons[STOP.INFRA_ERROR] + reasons[STOP.TIMEOUT]
  assert 0 < masked < 256
  for t in trajectories:
    if t.stop_reason.masked:
      assert t.reward is None and t.failure and not t.answer
    elif (t.task.id, t.member) not in faults.blamed:
      assert t.reward == 1.0, t
    else:
      assert t.reward in (0.0, 1.0)
  tries = sum(
    metrics[f"engine/{name}/{counter}"]
    for name in ("trainable", providers.SCRIPTED)
    for counter in ("retries", "failures")
  )
  assert tries > 0
  faulty.assert_nothing_left(before)


def test_the_step_ends_at_its_deadline_though_calls_hang(data_dir):
  """No limit but the step's: what hangs is cut off and masked."""
  deadline_s = 5.0
  before = faulty.left_over()
  faults = faulty.Faults(0.5, seed=4)
  groups, elapsed_s, _ = _run(data_dir, faults, rollout__timeout_s=deadline_s)
  assert elapsed_s <= deadline_s * 1.05 + 1.0  # a loaded machine's second
  trajectories = [t for group in groups for t in group.trajectories]
  late = [t for t in trajectories if t.stop_reason == STOP.TIMEOUT]
  assert late
  assert all(t.reward is None for t in late)
  faulty.assert_nothing_left(before)
