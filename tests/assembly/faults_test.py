"""256 episodes at once while engines and tools fail in seven ways.

The planner always plans rightly, so that an episode without a bad answer is
either right or masked: a reward of 0 would be infrastructure's.
"""

import asyncio
import collections
import logging
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


class _Late:
  """The time this process computed after a deadline.

  Its own time, so that a machine full of other work is no finding.
  """

  def __init__(self, deadline_s):
    self._cpu_s = None
    loop = asyncio.get_running_loop()
    self._timer = loop.call_later(deadline_s, self._passed)

  def _passed(self):
    self._cpu_s = time.process_time()

  def seconds(self):
    self._timer.cancel()
    return 0 if self._cpu_s is None else time.process_time() - self._cpu_s


def _run(data_dir, faults, **settings):
  """An iteration's groups, its seconds too many, and the engines' counts."""
  config = assembled_world.config(
    **{
      "rollout__tasks": 32,
      "rollout__group_size": 8,
      "rollout__max_concurrent_episodes": 256,
      **settings,
    }
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
      late = _Late(config.rollout.timeout_s)
      groups = await assembled_world.rollout(config, world, agents)
      over_s = late.seconds()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return groups, over_s, engines.metrics()

  return asyncio.run(main())


@pytest.fixture(autouse=True)
def warm(data_dir):
  """Libraries keep a runtime each for the life of the process.

  Pytest keeps log records, and with a traceback everything its frames hold.
  """
  logging.disable(logging.CRITICAL)
  _run(data_dir, faulty.Faults(0.0, seed=0), rollout__tasks=8)
  yield
  logging.disable(logging.NOTSET)


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
  groups, over_s, metrics = _run(data_dir, faults, **limits)
  assert over_s <= _DEADLINE_S * 0.05
  trajectories = [t for group in groups for t in group.trajectories]
  reasons = collections.Counter(t.stop_reason for t in trajectories)
  assert sum(reasons.values()) == 256
  assert set(faults.seen) == set(faulty.FAULTS)
  masked = reasons[STOP.INFRA_ERROR] + reasons[STOP.TIMEOUT]
  assert masked < 256
  # A retry saves nearly all where one call in twenty fails: of 256 episodes two
  # or so are masked, and at times none.
  assert masked > 0 or share == 0.05
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
  deadline_s = 8.0
  before = faulty.left_over()
  faults = faulty.Faults(0.5, seed=4)
  groups, over_s, _ = _run(data_dir, faults, rollout__timeout_s=deadline_s)
  assert over_s <= deadline_s * 0.05
  trajectories = [t for group in groups for t in group.trajectories]
  late = [t for t in trajectories if t.stop_reason == STOP.TIMEOUT]
  assert late
  assert all(t.reward is None for t in late)
  faulty.assert_nothing_left(before)
