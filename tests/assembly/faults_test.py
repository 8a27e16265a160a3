"""256 episodes at once while engines and tools fail in seven ways.

The planner always plans rightly, so that an episode without a bad answer is
either right or masked: a reward of 0 would be infrastructure's.
"""

import asyncio
import collections
import contextlib
import logging
import pathlib
import threading
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
  """The time from a deadline on, without waiting for a processor.

  On the clock, so that a step which sleeps is late as well; what the threads of
  this process waited in run queues is taken off, so that a machine full of
  other work is no finding.
  """

  def __init__(self, deadline_s):
    self._passed_s = time.monotonic() + deadline_s
    self._waited_s = 0.0
    # A thread, because the loop may be what is stuck.
    self._timer = threading.Timer(deadline_s, self._passed)
    self._timer.start()

  def _passed(self):
    self._waited_s = _waited_s()

  def seconds(self):
    self._timer.cancel()
    self._timer.join()
    late_s = time.monotonic() - self._passed_s
    return 0 if late_s <= 0 else late_s - (_waited_s() - self._waited_s)


def _waited_s():
  """How long this process's living threads were ready to run and did not."""
  total_ns = 0
  for path in pathlib.Path("/proc/self/task").glob("*/schedstat"):
    with contextlib.suppress(OSError):  # a thread that ended just now
      total_ns += int(path.read_text().split()[1])
  return total_ns / 1e9


def test_who_sleeps_is_late():
  late = _Late(0.05)
  time.sleep(0.5)
  assert late.seconds() > 0.3
  assert _Late(60.0).seconds() == 0


def _run(data_dir, faults, **settings):
  """An iteration's groups, its seconds too many, and all failures counted."""
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
      late = _Late(config.rollout.timeout_s)
      groups = await assembled_world.rollout(config, world, agents)
      over_s = late.seconds()
      counts = _counted(engines.metrics(), toolbox.metrics())
    assert asyncio.all_tasks() == {asyncio.current_task()}
    # Not returned: asyncio.run prints the result of its task to itself (a
    # look-up of its signal handler that fails), here hundreds of huge texts.
    found.extend((groups, over_s, counts))

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


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_faults_mask_and_never_score(data_dir, share):
  limits = {
    "engines__call_timeout_s": 2.0,
    "engines__retries": 1,
    # Room for two tries of its engine: a try that is cut off is not counted.
    "tools__call_timeout_s": 6.0,
    "tools__python_timeout_s": 0.5,
    "rollout__timeout_s": _DEADLINE_S,
  }
  before = faulty.left_over()
  faults = faulty.Faults(share, seed=3)
  groups, over_s, counts = _run(data_dir, faults, **limits)
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
  # Every fault that was no answer is in somebody's counters, and no other is.
  assert counts == {name: faults.failing[name] for name in counts}
  assert all(faults.failing.values()) and set(faults.failing) <= set(counts)
  faulty.assert_nothing_left(before)


@pytest.mark.usefixtures("warm")
def test_the_step_ends_at_its_deadline_though_calls_hang(data_dir):
  """No limit but the step's: what hangs is cut off and masked."""
  deadline_s = 8.0
  before = faulty.left_over()
  faults = faulty.Faults(0.5, seed=4)
  groups, over_s, counts = _run(data_dir, faults, rollout__timeout_s=deadline_s)
  assert over_s <= deadline_s * 0.05
  trajectories = [t for group in groups for t in group.trajectories]
  late = [t for t in trajectories if t.stop_reason == STOP.TIMEOUT]
  assert late
  # The deadline cuts calls off before anybody sees that they failed.
  for name, count in counts.items():
    assert count <= faults.failing[name], name
  assert sum(counts.values()) > 0
  assert all(t.reward is None for t in late)
  faulty.assert_nothing_left(before)
