"""Flows, built as a run builds them: who is asked, and who is trained."""

import asyncio
import collections

import assembled_world
import pytest

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.batching import samples
from agentflow_jax.core import config_validation, providers
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.evaluation.report import recordings, viewer_data
from agentflow_jax.rollout import recorder, transcript
from agentflow_jax.tasks.worldfacts import tag_rules
from agentflow_jax.testing import byte_tokenizer, scripted_engine

STOP = trajectory_lib.StopReason


def _tag_player():
  """The rule that plays through tags, as a policy with token ids."""
  return scripted_engine.FakePolicyEngine(
    byte_tokenizer.ByteTokenizer(), tag_rules.act
  )


def _monolithic(**settings):
  return assembled_world.config(
    agent__flow="monolithic",
    learner__trained_roles=("policy",),
    agent__max_turns=6,
    **settings,
  )


def _rollout(made, data_dir, models):
  async def run():
    async with assembled_world.open_agents(made, data_dir, models) as opened:
      world, engines, _, agents = opened
      return await assembled_world.rollout(made, world, agents), engines

  return asyncio.run(run())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("style", ["compact", "full"])
def test_the_rule_solves_every_family_through_tags(data_dir, style):
  made = _monolithic(agent__prompt_style=style, rollout__tasks=24)
  models = {agents_lib.TRAINABLE: _tag_player()}
  groups, engines = _rollout(made, data_dir, models)
  assert set(engines.stacks) == {"policy", "tool"}
  families = collections.Counter(group.task.family for group in groups)
  assert set(families) >= {"one_hop", "two_hop", "compute"}
  for group in groups:
    for trajectory in group.trajectories:
      assert (trajectory.reward, trajectory.stop_reason) == (1.0, STOP.VERIFIED)
      assert all(turn.results[0].ok for turn in trajectory.turns)


def test_the_scripted_engine_plays_the_policy(data_dir):
  made = _monolithic()
  made.engines.policy = providers.SCRIPTED_WORLDFACTS
  config_validation.validate(made, training=False)
  groups, _ = _rollout(made, data_dir, {})
  rewards = [t.reward for group in groups for t in group.trajectories]
  assert set(rewards) == {1.0}


def test_a_monolithic_trajectory_is_scored_shown_and_recorded(
  data_dir, tmp_path
):
  models = {agents_lib.TRAINABLE: _tag_player()}
  groups, _ = _rollout(_monolithic(), data_dir, models)
  trajectories = [t for group in groups for t in group.trajectories]
  summary = scores.summarise(trajectories, members=2, resamples=0)
  assert summary["accuracy"] == 1.0
  assert summary["completion_tokens"] > 10  # the answers are among them
  assert "Wikipedia_Search_Tool" in summary["tool_mix"]
  path = tmp_path / "records.jsonl"
  recorder.record_all(path, 1, trajectories)
  assert list(recorder.read_trajectories(path)) == trajectories
  lines = tmp_path / "transcript.txt"
  with open(lines, "w", encoding="utf-8") as file:
    shown = transcript.Transcript(file)
    for turn in trajectories[0].turns:
      shown.turn(turn)
  assert "Wikipedia_Search_Tool" in lines.read_text("utf-8")
  file = recordings.RecordFile(
    run=0, path=path, split=recordings.TRAINING, lines=len(groups)
  )
  recorded = [
    recordings.Recorded(file=file, index=i, record=record, advantage=None)
    for i, record in enumerate(recorder.read_records(path))
  ]
  data = viewer_data.build(recorded, ["run"], [None], 10**7)
  assert data.shown == len(trajectories)
  (item, *_) = data.value["items"]
  assert item["turns"][0]["plan"]["tool"] and item["calls"]


@pytest.mark.parametrize(
  ("roles", "counted"),
  [
    (("planner",), {"planner": 1}),
    (("planner", "verifier"), {"planner": 1, "verifier": 1}),
    (("verifier",), {"verifier": 1}),
  ],
)
def test_trained_roles_select_the_samples(data_dir, roles, counted):
  """A verifier that the trainable engine answers, trained only if named."""
  made = assembled_world.config(
    engines__verifier=providers.TRAINABLE, learner__trained_roles=roles
  )
  planner = assembled_world.oracle()
  policy = scripted_engine.FakePolicyEngine(
    byte_tokenizer.ByteTokenizer(),
    lambda text, context: (
      "Conclusion: STOP"
      if context.role == "verifier"
      else planner._script(text, context)
    ),
  )
  groups, _ = _rollout(made, data_dir, {agents_lib.TRAINABLE: policy})
  scored = [
    trajectory_lib.TrajectoryGroup(
      task=group.task,
      trajectories=tuple(
        t.replace_reward(float(i % 2)) for i, t in enumerate(group.trajectories)
      ),
    )
    for group in groups
  ]
  made_samples = samples.build_samples(
    scored, made.learner, max_turns=4, max_completion_tokens=100
  )
  trajectories = [t for group in scored for t in group.trajectories]
  expected = collections.Counter(
    (str(call.role), call.completion.token_ids)
    for t in trajectories
    for turn in t.turns
    for call in turn.module_calls
    if call.role in counted
  )
  found = collections.Counter(
    tuple(s.completion_ids.tolist())
    for batch in made_samples.mini_batches
    for s in batch
  )
  assert found == collections.Counter(
    {ids: n for (_, ids), n in expected.items()}
  )
  assert {role for role, _ in expected} == set(counted)
