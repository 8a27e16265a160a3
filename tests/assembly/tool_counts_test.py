"""A training iteration's metrics say what its tools did."""

import asyncio
import types

import assembled_world
import pytest

from agentflow_jax.assembly import trainer
from agentflow_jax.rewards import rule_reward

_SEARCH = "tool/Wikipedia_Search_Tool"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def _iterations(config, data_dir):
  """Two iterations of the trainer's own rollouts."""

  async def main():
    models = {"trainable": assembled_world.oracle()}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, engines, _, agents = parts
      runner = trainer._rollouts(
        world,
        types.SimpleNamespace(engines=engines, agents=agents),
        rule_reward.RuleReward(world.scorers),
      )
      first = await runner.run(1, 0)
      return first, await runner.run(2, first.position)

  return asyncio.run(main())


def _calls(rollout) -> int:
  return sum(
    call.tool_name == "Wikipedia_Search_Tool"
    for trajectory in rollout.trajectories
    for turn in trajectory.turns
    for call in turn.calls
  )


@pytest.mark.parametrize("recorded", [False, True])
def test_an_iteration_counts_its_own_calls(data_dir, tmp_path, recorded):
  settings = {}
  if recorded:
    settings = {
      "rollout__replay": "record",
      "rollout__replay_dir": str(tmp_path / "replay"),
    }
  config = assembled_world.config(**settings)
  for rollout in _iterations(config, data_dir):
    counts = rollout.host_metrics
    assert counts[f"{_SEARCH}/calls"] == _calls(rollout) > 0
    assert counts[f"{_SEARCH}/failed"] == 0
    assert "engine/trainable/calls" in counts
