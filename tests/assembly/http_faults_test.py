"""64 episodes at once whose API fails in six ways, over real HTTP.

Every answer that comes is right, so an episode is either right or masked.
"""

import asyncio
import time

import api_process
import assembled_world
import faulty
import lateness
import pytest

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import rule_reward
from agentflow_jax.rollout import group_rollout

pytestmark = pytest.mark.slow

STOP = trajectory_lib.StopReason
_TASKS = [
  task_lib.Task(
    id=f"laos{n}",
    question="What is the currency of Laos?",
    answers=("kip",),
    data_source="test",
    scorer="exact_match",
  )
  for n in range(16)
]


@pytest.fixture(scope="module")
def api():
  with api_process.serve() as running:
    yield running


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)


def _config(api, share, **settings):
  """The API writes commands and verdicts; a circuit breaker would hide it."""
  roles = ("executor", "verifier")
  return assembled_world.config(
    engines__circuit_failures=10_000,
    engines__retries=1,
    rollout__group_size=4,
    rollout__max_concurrent_episodes=64,
    **{f"engines__{role}": f"compatible:faulty-{share}" for role in roles},
    **{f"engines__{role}_options__base_url": api.base_url for role in roles},
    **settings,
  )


def _run(config, data_dir):
  """(trajectories, seconds too many, what the API's engine counted)."""

  async def main():
    models = {"trainable": assembled_world.oracle()}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      _, engines, _, agents = parts
      late = lateness.Late(config.rollout.timeout_s)
      groups = await group_rollout.run_groups(
        _TASKS,
        lambda task, member: agents.run(task, member, stream="train", step=1),
        rule_reward.RuleReward(["exact_match"]),
        group_size=config.rollout.group_size,
        max_concurrent_episodes=config.rollout.max_concurrent_episodes,
        timeout_s=config.rollout.timeout_s,
      )
      over_s = late.seconds()
      name = f"engine/{config.engines.executor}/"
      counts = {
        key.removeprefix(name): value
        for key, value in engines.metrics().items()
        if key.startswith(name)
      }
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return [t for group in groups for t in group.trajectories], over_s, counts

  return asyncio.run(main())


def _faults(api, run):
  """What `run` returns, and how often the API failed meanwhile, by kind."""
  before = api.stats()["faults"]
  found = run()
  ends_s = time.monotonic() + 30
  while api.stats()["open"] and time.monotonic() < ends_s:
    time.sleep(0.05)
  after = api.stats()
  assert after["open"] == 0  # nobody waits for an answer any more
  faults = {n: v - before.get(n, 0) for n, v in after["faults"].items()}
  return *found, faults


@pytest.fixture
def before(api, data_dir):
  """What a process holds that has once asked an API."""
  _, _, counts = _run(_config(api, 0), data_dir)
  assert counts["requests"] == 2 * 64
  return faulty.left_over()


def _assert_no_fault_scored(trajectories):
  assert len(trajectories) == 64
  for t in trajectories:
    if t.stop_reason.masked:
      assert t.reward is None and t.failure and not t.answer
    else:
      assert (t.reward, t.answer) == (1.0, "kip"), t


def test_calls_that_fail_are_retried_masked_and_counted(api, data_dir, before):
  config = _config(api, 50, engines__call_timeout_s=4.0)
  trajectories, _, counts, faults = _faults(api, lambda: _run(config, data_dir))
  _assert_no_fault_scored(trajectories)
  masked = [t for t in trajectories if t.stop_reason.masked]
  assert {t.stop_reason for t in masked} == {STOP.INFRA_ERROR}
  assert 0 < len(masked) < 64
  assert len(masked) == counts["failures"]
  assert all(faults.values()) and len(faults) == 6
  slow = faults.pop("slow")
  assert slow and counts["retries"] + counts["failures"] == sum(faults.values())
  assert counts["rate_limited"] == faults["status-429"]
  faulty.assert_nothing_left(before)


def test_a_step_ends_at_its_deadline_though_an_api_hangs(api, data_dir, before):
  """No limit but the step's."""
  deadline_s = 10.0
  config = _config(api, 50, rollout__timeout_s=deadline_s)
  trajectories, over_s, counts, faults = _faults(
    api, lambda: _run(config, data_dir)
  )
  assert 0 <= over_s <= 0.05 * deadline_s  # it was met, and kept
  _assert_no_fault_scored(trajectories)
  late = [t for t in trajectories if t.stop_reason is STOP.TIMEOUT]
  # Who is answered with silence waits for the step to end.
  assert len(late) == faults.pop("hang") > 0
  assert any(t.reward == 1.0 for t in trajectories)
  assert faults.pop("slow")
  assert counts["retries"] + counts["failures"] == sum(faults.values())
  faulty.assert_nothing_left(before)
