"""How trajectories of a run are scored: by rules, with a judge if asked for."""

from collections.abc import Iterable

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import protocols
from agentflow_jax.rewards import llm_judge, rule_reward


def build_reward(
  engines: agents_lib.Engines, scorers: Iterable[str]
) -> protocols.RewardFn:
  """The reward of `engines.judge`; rules alone when that is "".

  Raises:
    ConfigError: there is no such scorer.
  """
  if not engines.config.engines.judge:
    return rule_reward.RuleReward(scorers)
  judge, _ = engines.for_role(config_lib.JUDGE)
  return llm_judge.JudgedReward(scorers, judge)


def metrics(reward_fn: protocols.RewardFn) -> dict[str, float]:
  """What a judge counted; nothing for rules."""
  if isinstance(reward_fn, llm_judge.JudgedReward):
    return reward_fn.metrics()
  return {}
