"""What an episode is run with: its limits and its modules."""

import dataclasses

from agentflow_jax.agent import commands, tool_calls
from agentflow_jax.agent import executor as executor_lib
from agentflow_jax.agent import generator as generator_lib
from agentflow_jax.agent import memory as memory_lib
from agentflow_jax.agent import planner as planner_lib
from agentflow_jax.agent import policy as policy_lib
from agentflow_jax.agent import verifier as verifier_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AgentModules:
  """The four modules and the planner's way to count tokens.

  Engines should retry and have a limit per call of their own
  (engines/retrying.py); an episode knows its own deadline only.
  """

  planner: planner_lib.Planner
  executor: executor_lib.Executor
  verifier: verifier_lib.Verifier
  generator: generator_lib.Generator
  # For the memory budget: at most one token per UTF-8 byte.
  count_tokens: memory_lib.CountTokens


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MonolithicModules:
  """The one module of a monolithic agent, and its way to count tokens."""

  policy: policy_lib.Policy
  # For results: at most one token per UTF-8 byte.
  count_tokens: memory_lib.CountTokens


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSettings:
  """Limits and outputs of an episode; the fields are AgentConfig's.

  Example: `EpisodeSettings.from_config(config, evaluation=False)`.
  """

  max_turns: int
  max_calls_per_turn: int
  max_episode_tokens: int
  episode_timeout_s: float
  turn_timeout_s: float
  max_parse_failures: int
  prompt_style: str  # full | compact
  plan_format: str  # labelled | json
  memory_tokens: int
  query_analysis: bool
  outputs: tuple[str, ...]
  tool_limits: tool_calls.ToolLimits

  def __post_init__(self):
    if self.max_calls_per_turn > commands.MAX_CALLS:
      raise errors.ConfigError(
        f"agent.max_calls_per_turn={self.max_calls_per_turn}, but at most "
        f"{commands.MAX_CALLS} calls are read from one command"
      )
    if unknown := set(self.outputs) - set(generator_lib.OUTPUTS):
      raise errors.ConfigError(
        f"agent.outputs has {min(unknown)!r}; the outputs are: "
        f"{', '.join(generator_lib.OUTPUTS)}"
      )

  @classmethod
  def from_config(
    cls, config: config_lib.Config, evaluation: bool
  ) -> "EpisodeSettings":
    """The settings of training episodes, or of evaluation episodes.

    Raises:
      ConfigError: a limit that can not be kept, or an unknown output.
    """
    agent = config.agent
    return cls(
      max_turns=agent.evaluation_max_turns if evaluation else agent.max_turns,
      max_calls_per_turn=agent.max_calls_per_turn,
      max_episode_tokens=agent.max_episode_tokens,
      episode_timeout_s=agent.episode_timeout_s,
      turn_timeout_s=agent.turn_timeout_s,
      max_parse_failures=agent.max_parse_failures,
      prompt_style=agent.prompt_style,
      plan_format=agent.plan_format,
      memory_tokens=agent.memory_tokens,
      query_analysis=agent.query_analysis,
      outputs=tuple(agent.outputs),
      tool_limits=tool_calls.ToolLimits(
        timeout_s=config.tools.call_timeout_s,
        retries=config.engines.retries,
        max_output_chars=config.tools.max_output_chars,
        max_output_tokens=config.tools.max_output_tokens,
      ),
    )
