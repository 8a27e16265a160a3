"""A run recorded and repeated: the same tokens from nothing but a file."""

import asyncio
import dataclasses

import assembled_world
import pytest

from agentflow_jax.core import errors
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.testing import byte_tokenizer, scripted_engine
from agentflow_jax.tools import registry


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def _nobody():
  """A policy that must not be asked."""

  def script(text, context):
    raise AssertionError("the policy was asked")

  return scripted_engine.FakePolicyEngine(
    byte_tokenizer.ByteTokenizer(), script
  )


def _run(config, data_dir, policy, break_tools=None):
  async def main():
    models = {"trainable": policy}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, engines, toolbox, agents = parts
      if break_tools is not None:
        for tool in toolbox.values():
          break_tools(tool)
      groups = await assembled_world.rollout(config, world, agents)
      return groups, engines.metrics()

  return asyncio.run(main())


def _timeless(groups):
  """Trajectories without their durations."""

  def strip(value):
    if dataclasses.is_dataclass(value):
      fields = {
        field.name: strip(getattr(value, field.name))
        for field in dataclasses.fields(value)
      }
      fields.pop("duration_s", None)
      return type(value).__name__, fields
    if isinstance(value, tuple):
      return tuple(map(strip, value))
    return value

  return [strip(group) for group in groups]


def test_a_run_is_repeated_with_the_same_tokens(data_dir, tmp_path):
  where = {"rollout__replay_dir": str(tmp_path / "replay")}
  settings = {"rollout__tasks": 12, "rollout__group_size": 3}
  recorded, counts = _run(
    assembled_world.config(rollout__replay="record", **where, **settings),
    data_dir,
    assembled_world.oracle(),
  )
  assert counts["replay/answers"] > 12 * 3 * 4
  assert counts["replay/withheld"] == 0
  tokens = [
    call.completion.token_ids
    for group in recorded
    for t in group.trajectories
    for turn in t.turns
    for call in turn.module_calls[:1]
  ]
  assert all(tokens) and len(tokens) > 36

  def no_tool(tool):
    async def execute(arguments, context):
      raise AssertionError("a tool was called")

    tool._tool.execute = execute

  repeated, again = _run(
    assembled_world.config(rollout__replay="replay", **where, **settings),
    data_dir,
    _nobody(),
    no_tool,
  )
  assert _timeless(repeated) == _timeless(recorded)
  # A replayed tool asks no engine.
  assert 0 < again["replay/answers"] < counts["replay/answers"]
  assert {t.reward for g in recorded for t in g.trajectories} == {1.0}


def test_failures_are_repeated_too(data_dir, tmp_path):
  where = {"rollout__replay_dir": str(tmp_path / "replay")}
  asked = []

  def breaking(tool):
    inner = tool._tool
    execute = inner.execute

    async def fail_at_times(arguments, context):
      asked.append(context)
      if context.member == 1:
        raise errors.ToolHostError("the host is gone")
      if len(asked) == 1:
        raise errors.ToolHostError("only once")
      return await execute(arguments, context)

    inner.execute = fail_at_times

  config = assembled_world.config(
    rollout__replay="record", engines__retries=1, **where
  )
  recorded, _ = _run(config, data_dir, assembled_world.oracle(), breaking)
  config.rollout.replay = "replay"
  repeated, _ = _run(config, data_dir, _nobody())
  for before, after in zip(recorded, repeated, strict=True):
    assert [t.stop_reason for t in after.trajectories] == [
      trajectory_lib.StopReason.VERIFIED,
      trajectory_lib.StopReason.INFRA_ERROR,
    ]
    assert [t.reward for t in after.trajectories] == [1.0, None]
    assert _timeless([before]) == _timeless([after])


def test_another_run_can_not_be_replayed(data_dir, tmp_path):
  where = {"rollout__replay_dir": str(tmp_path / "replay")}
  config = assembled_world.config(rollout__replay="record", **where)
  _run(config, data_dir, assembled_world.oracle())
  config.rollout.replay = "replay"
  config.run.seed = 5
  with pytest.raises(errors.UserError, match="no answer for the planner"):
    _run(config, data_dir, _nobody())
  config.rollout.replay_dir = str(tmp_path / "elsewhere")
  with pytest.raises(errors.UserError, match="elsewhere"):
    _run(config, data_dir, _nobody())


def test_the_toolbox_is_a_toolbox_still(data_dir, tmp_path):
  config = assembled_world.config(
    rollout__replay="record", rollout__replay_dir=str(tmp_path)
  )

  async def main():
    models = {"trainable": assembled_world.oracle()}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      toolbox = parts[2]
      assert isinstance(toolbox, registry.Toolbox)
      await toolbox.check()

  asyncio.run(main())
