"""EpisodeSettings takes every knob of the config that it should."""

import dataclasses

import pytest

from agentflow_jax.agent import commands
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.core import agent_config, errors
from agentflow_jax.core import config as config_lib


def _from(evaluation=False, **agent):
  config = config_lib.Config()
  for name, value in agent.items():
    setattr(config.agent, name, value)
  return settings_lib.EpisodeSettings.from_config(config, evaluation)


def test_turns_of_training_and_evaluation():
  assert _from(max_turns=2, evaluation_max_turns=9).max_turns == 2
  assert _from(True, max_turns=2, evaluation_max_turns=9).max_turns == 9


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("max_calls_per_turn", 7),
    ("max_episode_tokens", 99),
    ("episode_timeout_s", 1.5),
    ("max_parse_failures", 8),
    ("prompt_style", "compact"),
    ("plan_format", "json"),
    ("memory_tokens", 77),
    ("query_analysis", True),
    ("outputs", ("base", "final")),
  ],
)
def test_every_agent_knob_arrives(name, value):
  assert getattr(_from(**{name: value}), name) == value


def test_no_agent_knob_is_left_behind():
  ours = {
    field.name for field in dataclasses.fields(settings_lib.EpisodeSettings)
  }
  knobs = {field.name for field in dataclasses.fields(agent_config.AgentConfig)}
  # Who the modules are is known by their type.
  assert knobs - ours == {"evaluation_max_turns", "flow"}


def test_tool_limits_come_from_tools_and_engines():
  config = config_lib.Config()
  config.tools.call_timeout_s = 3.0
  config.tools.max_output_chars = 44
  config.engines.retries = 5
  limits = settings_lib.EpisodeSettings.from_config(config, False).tool_limits
  assert (limits.timeout_s, limits.max_output_chars, limits.retries) == (
    3.0,
    44,
    5,
  )


def test_limits_that_can_not_be_kept_are_refused():
  with pytest.raises(errors.ConfigError, match="max_calls_per_turn"):
    _from(max_calls_per_turn=commands.MAX_CALLS + 1)
  with pytest.raises(errors.ConfigError, match="'essay'"):
    _from(outputs=("direct", "essay"))
