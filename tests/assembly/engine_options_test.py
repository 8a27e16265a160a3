"""Engine options from the config to the wire, and what they count."""

import asyncio
import contextlib

import api_process
import assembled_world
import pytest

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import judging
from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import rule_reward

_API = "compatible:echo"


@pytest.fixture(scope="module")
def api():
  with api_process.serve() as running:
    yield running


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def _run(config, data_dir, tasks=1):
  """Episodes of a config, and what the engines counted."""

  async def main():
    models = {"trainable": assembled_world.oracle()}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, engines, _, agents = parts
      config.rollout.tasks = tasks
      groups = await assembled_world.rollout(config, world, agents)
      return groups, engines.metrics(reset=True)

  return asyncio.run(main())


def test_a_role_is_asked_where_and_how_its_options_say(api, data_dir):
  config = assembled_world.config(
    engines__generator=_API,
    engines__generator_options__base_url=api.base_url,
    engines__generator_options__temperature=0.25,
    engines__generator_options__top_p=0.5,
    engines__generator_options__max_tokens=77,
    engines__generator_options__input_price=3.0,
  )
  groups, metrics = _run(config, data_dir)
  for trajectory in groups[0].trajectories:
    assert trajectory.stop_reason == trajectory_lib.StopReason.VERIFIED
    assert trajectory.outputs[0][1].startswith("echo: Question:")
    assert trajectory.reward == 0.0
  body = api.stats()["bodies"][-1]
  assert (body["temperature"], body["top_p"], body["max_tokens"]) == (
    0.25,
    0.5,
    77,
  )
  assert metrics[f"engine/{_API}/requests"] == 2
  assert metrics[f"engine/{_API}/calls"] == 2
  assert metrics[f"engine/{_API}/prompt_tokens"] == 2000
  assert metrics[f"engine/{_API}/cost"] == pytest.approx(2000 * 3e-6)
  assert metrics["engine/trainable/calls"] > 0
  assert metrics["engine/scripted:worldfacts/failures"] == 0


def test_defaults_come_from_the_frozen_settings(api, data_dir):
  config = assembled_world.config(
    engines__generator=_API,
    engines__generator_options__base_url=api.base_url,
    engines__frozen_temperature=0.125,
    engines__frozen_max_tokens=55,
  )
  _run(config, data_dir)
  body = api.stats()["bodies"][-1]
  assert (body["temperature"], body["max_tokens"]) == (0.125, 55)
  assert "top_p" not in body


def test_bound_answers_run_an_episode(api, data_dir):
  """Planner, executor and verifier by schema; the tool is the real one."""
  options = {
    f"engines__{role}_options__base_url": api.base_url
    for role in ("planner", "executor", "verifier")
  }
  config = assembled_world.config(
    engines__executor=_API,
    engines__verifier=_API,
    **{name: url for name, url in options.items() if "planner" not in name},
  )
  config.engines.planner = _API  # an evaluation's, so not validated
  config.engines.planner_options.base_url = api.base_url
  groups, _ = _run(config, data_dir)
  (turn,) = groups[0].trajectories[0].turns
  assert turn.decision.tool_name == "Wikipedia_Search_Tool"
  assert turn.calls[0].arguments == {"query": "Laos capital"}
  assert turn.results[0].output.startswith("Laos: ")
  assert turn.verdict.stop


def test_structured_off_stream_and_the_limit_reach_the_wire(data_dir):
  with api_process.serve() as api:
    config = assembled_world.config(
      engines__verifier="compatible:slow",
      engines__verifier_options__base_url=api.base_url,
      engines__verifier_options__structured=False,
      engines__max_concurrent_calls=2,
      rollout__group_size=8,
    )
    groups, _ = _run(config, data_dir)
    stats = api.stats()
    assert stats["most"] == 2
    assert "response_format" not in stats["bodies"][-1]
    assert "stream" not in stats["bodies"][-1]
    verdict = groups[0].trajectories[0].turns[0].verdict
    assert verdict.reason.startswith("echo: Decide whether")
    config.engines.stream = True
    config.engines.verifier = _API
    _run(config, data_dir)
    assert api.stats()["bodies"][-1]["stream"] is True


def test_the_cache_saves_the_second_run(api, data_dir, tmp_path):
  config = assembled_world.config(
    engines__generator=_API,
    engines__generator_options__base_url=api.base_url,
    engines__cache_dir=str(tmp_path / "cache"),
  )
  first, counts = _run(config, data_dir)
  second, counts_again = _run(config, data_dir)
  assert [t.answer for t in first[0].trajectories] == [
    t.answer for t in second[0].trajectories
  ]
  assert counts[f"engine/{_API}/requests"] > 0
  assert counts_again[f"engine/{_API}/requests"] == 0
  assert counts_again[f"engine/{_API}/cache_hits"] == 2


def test_a_dead_api_masks_and_its_circuit_opens(api, data_dir):
  name = "compatible:status-500"
  config = assembled_world.config(
    engines__generator=name,
    engines__generator_options__base_url=api.base_url,
    engines__retries=0,
    engines__circuit_failures=3,
    engines__circuit_pause_s=60.0,
    engines__max_concurrent_calls=1,
    rollout__group_size=8,
  )
  groups, metrics = _run(config, data_dir)
  for trajectory in groups[0].trajectories:
    assert trajectory.stop_reason == trajectory_lib.StopReason.INFRA_ERROR
    assert trajectory.reward is None
    assert api_process.KEY not in trajectory.failure
  assert metrics[f"engine/{name}/failed"] == 3
  assert metrics[f"engine/{name}/circuit_opened"] == 1
  assert metrics[f"engine/{name}/circuit_refused"] == 5
  assert metrics[f"engine/{name}/failures"] == 8


def test_a_wrong_key_stops_the_run(api, data_dir, monkeypatch):
  monkeypatch.setenv("COMPATIBLE_API_KEY", "sk-some-other-key")
  config = assembled_world.config(
    engines__generator=_API,
    engines__generator_options__base_url=api.base_url,
  )
  with pytest.raises(errors.UserError, match="COMPATIBLE_API_KEY") as caught:
    _run(config, data_dir)
  assert "sk-some-other-key" not in str(caught.value)


def test_a_missing_key_is_noticed_before_anything_runs(monkeypatch):
  monkeypatch.delenv("OPENAI_API_KEY", raising=False)
  config = assembled_world.config(engines__tool="openai:gpt-4o-mini")
  with pytest.raises(errors.UserError, match="OPENAI_API_KEY"):
    agents_lib.Engines.of(config, {})


def test_roles_share_an_engine_if_they_name_the_same(api):
  config = assembled_world.config(
    engines__executor=_API,
    engines__verifier=_API,
    engines__generator=_API,
    engines__executor_options__base_url=api.base_url,
    engines__verifier_options__base_url=api.base_url,
    engines__verifier_options__temperature=0.5,
    engines__generator_options__base_url=api.base_url + "/",
  )

  async def main():
    engines = agents_lib.Engines.of(config, {})
    executor, verifier, generator = (
      engines.for_role(role) for role in ("executor", "verifier", "generator")
    )
    assert executor[0] is verifier[0]
    assert executor[1] != verifier[1]
    assert generator[0] is not executor[0]
    await engines.aclose()

  asyncio.run(main())


@pytest.mark.parametrize("right", [True, False])
def test_the_judge_is_asked_about_what_rules_call_wrong(api, right):
  """The server echoes the prompt, in which the task names both verdicts."""
  config = assembled_world.config(
    engines__judge=_API, engines__judge_options__base_url=api.base_url
  )
  task = task_lib.Task(
    id="q", question="Who?", answers=("Ada",), data_source="test"
  )
  trajectory = trajectory_lib.Trajectory(
    task=task,
    member=0,
    turns=(),
    answer="Ada" if right else "Lady Lovelace",
    outputs=(),
    stop_reason=trajectory_lib.StopReason.VERIFIED,
    policy_version=0,
  )

  async def main():
    engines = agents_lib.Engines.of(config, {})
    async with contextlib.aclosing(engines):
      reward_fn = judging.build_reward(engines, {"exact_match"})
      return await reward_fn(trajectory), judging.metrics(reward_fn)

  reward, metrics = asyncio.run(main())
  assert reward == float(right)
  assert metrics["judge/asked"] == (not right)
  if not right:
    body = api.stats()["bodies"][-1]
    assert "Lady Lovelace" in body["messages"][-1]["content"]
    assert body["temperature"] == 0


def test_without_a_judge_rules_decide():
  engines = agents_lib.Engines.of(assembled_world.config(), {})
  reward_fn = judging.build_reward(engines, {"exact_match"})
  assert type(reward_fn) is rule_reward.RuleReward
  assert judging.metrics(reward_fn) == {}
