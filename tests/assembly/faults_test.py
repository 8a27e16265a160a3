"""256 episodes at once while engines and tools fail in seven ways.

The planner always plans rightly, so that an episode without a bad answer is
either right or masked: a reward of 0 would be infrastructure's.
"""

import asyncio
import collections
import hashlib
import logging
import os
import threading
import time

import assembled_world
import faulty
import lateness
import pytest

from agentflow_jax.core import providers
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.tasks.worldfacts import rules

STOP = trajectory_lib.StopReason


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def test_who_sleeps_is_late():
  late = lateness.Late(0.05)
  time.sleep(0.5)
  assert late.seconds() > 0.3
  assert -60.0 < lateness.Late(60.0).seconds() < -30.0


def test_what_other_threads_wait_is_no_excuse():
  """More threads at work than processors: they wait for seconds in all."""
  ends_s = time.monotonic() + 1.5  # at work when they are looked at
  block = bytes(2**22)  # hashed without the interpreter's lock

  def work():
    while time.monotonic() < ends_s:
      hashlib.sha256(block).digest()

  late = lateness.Late(0.05)
  threads = [
    threading.Thread(target=work) for _ in range(4 * (os.cpu_count() or 1))
  ]
  for thread in threads:
    thread.start()
  time.sleep(1.0)
  # Awake for moments only: hardly anything to take off.
  assert late.seconds() > 0.3
  for thread in threads:
    thread.join()


def _run(data_dir, faults, **settings):
  """What an iteration came to: (trajectories, seconds too many, counts).

  The counts are the failures by engine and tool, and how many of the planner's
  calls failed for good.
  """
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
    "trainable": faults.engine("trainable", assembled_world.oracle()),
    providers.SCRIPTED_WORLDFACTS: faults.engine(
      providers.SCRIPTED_WORLDFACTS, frozen
    ),
  }

  found = []

  async def main():
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, engines, toolbox, agents = parts
      for name, tool in toolbox.items():
        faults.break_tool(name, tool)
      late = lateness.Late(config.rollout.timeout_s)
      groups = await assembled_world.rollout(config, world, agents)
      over_s = late.seconds()
      counts = _counted(engines.metrics(), toolbox.metrics())
      lost_plans = engines.metrics()["engine/trainable/failures"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    # Not returned: asyncio.run prints the result of its task to itself (a
    # look-up of its signal handler that fails), here hundreds of huge texts.
    trajectories = [t for group in groups for t in group.trajectories]
    found.extend((trajectories, over_s, counts, lost_plans))

  asyncio.run(main())
  return found


def _counted(engines, tools):
  """Tries that failed, by engine and tool."""
  counts = {
    name: engines[f"engine/{name}/retries"] + engines[f"engine/{name}/failures"]
    for name in ("trainable", providers.SCRIPTED_WORLDFACTS)
  }
  suffix = "/failed"
  return counts | {
    key.removeprefix("tool/").removesuffix(suffix): count
    for key, count in tools.items()
    if key.endswith(suffix)
  }


@pytest.fixture(scope="module")
def warm(data_dir):
  """Libraries keep a runtime each for the life of the process."""
  _run(data_dir, faulty.Faults(0.0, seed=0), rollout__tasks=8)


@pytest.fixture(autouse=True)
def quiet():
  """Pytest keeps log records, and with a traceback what its frames hold."""
  logging.disable(logging.CRITICAL)
  yield
  logging.disable(logging.NOTSET)


def _assert_no_fault_scored(trajectories, faults, lost_plans):
  """A reward is right, or that of an episode with a bad answer in it."""
  lost = [t for t in trajectories if t.stop_reason is STOP.INFRA_ERROR]
  # An episode may do well without an answer, so rewards alone tell little.
  assert sum(", planner: " in t.failure for t in lost) == lost_plans
  for t in trajectories:
    if t.stop_reason.masked:
      assert t.reward is None and t.failure and not t.answer
    elif (t.task.id, t.member) not in faults.blamed:
      assert t.reward == 1.0, t
    else:
      assert t.reward in (0.0, 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_faults_mask_and_never_score(data_dir, share):
  """Calls have limits of their own: most is over long before the deadline."""
  deadline_s = 60.0
  limits = {
    "engines__call_timeout_s": 2.0,
    "engines__retries": 1,
    # Room for two tries of its engine: a try that is cut off is not counted.
    "tools__call_timeout_s": 6.0,
    "tools__python_timeout_s": 0.5,
    "rollout__timeout_s": deadline_s,
  }
  before = faulty.left_over()
  faults = faulty.Faults(share, seed=3)
  trajectories, over_s, counts, lost_plans = _run(data_dir, faults, **limits)
  assert over_s <= deadline_s * 0.05
  reasons = collections.Counter(t.stop_reason for t in trajectories)
  assert sum(reasons.values()) == 256
  assert set(faults.seen) == set(faulty.FAULTS)
  masked = reasons[STOP.INFRA_ERROR] + reasons[STOP.TIMEOUT]
  assert masked < 256
  # A retry saves nearly all where one call in twenty fails: of 256 episodes two
  # or so are masked, and at times none.
  assert masked > 0 or share == 0.05
  _assert_no_fault_scored(trajectories, faults, lost_plans)
  # Every fault that was no answer is in somebody's counters, and no other is.
  assert counts == {name: faults.failing[name] for name in counts}
  assert all(faults.failing.values()) and set(faults.failing) <= set(counts)
  faulty.assert_nothing_left(before)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
  "share",
  [
    pytest.param(0.05, marks=pytest.mark.slow),
    pytest.param(0.2, marks=pytest.mark.slow),
    0.5,
  ],
)
def test_the_step_ends_at_its_deadline_though_calls_hang(data_dir, share):
  """No limit but the step's: what hangs is cut off and masked."""
  deadline_s = 8.0
  before = faulty.left_over()
  faults = faulty.Faults(share, seed=4)
  trajectories, over_s, counts, lost_plans = _run(
    data_dir, faults, rollout__timeout_s=deadline_s
  )
  assert 0 <= over_s <= deadline_s * 0.05  # the deadline was met, and kept
  assert len(trajectories) == 256
  assert set(faults.seen) == set(faulty.FAULTS)
  late = [t for t in trajectories if t.stop_reason == STOP.TIMEOUT]
  assert late and all("the rollout's 8 s" in t.failure for t in late)
  # Some got through, without a fault or past it.
  assert any(t.reward == 1.0 for t in trajectories)
  _assert_no_fault_scored(trajectories, faults, lost_plans)
  # An engine's call that the deadline cut off failed for nobody; all others
  # that failed are counted, and no more.
  expected = faults.failing - faults.cut
  assert counts == {name: expected[name] for name in counts}
  assert faults.cut and set(faults.failing) <= set(counts)
  faulty.assert_nothing_left(before)
