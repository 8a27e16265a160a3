"""What a warm start goes with; part of core/config_rules.py."""

from agentflow_jax.core import config_rule, providers

RULES: tuple[config_rule.Rule, ...] = (
  config_rule.Rule(
    fields=("warm_start.enabled", "model.checkpoint"),
    broken=lambda c: c.warm_start.enabled and bool(c.model.checkpoint),
    why="the warm start begins from random weights, not from a checkpoint",
    training=True,
  ),
  config_rule.Rule(
    fields=("warm_start.enabled", "tasks.train", "engines.executor"),
    broken=lambda c: (
      c.warm_start.enabled
      and c.tasks.train != "worldfacts"
      and c.engines.executor != providers.SCRIPTED_SEARCH
    ),
    why="the warm start is written for worldfacts and for scripted:search",
    training=True,
  ),
  config_rule.Rule(
    fields=("warm_start.renamed_share", "engines.executor"),
    broken=lambda c: (
      c.warm_start.enabled
      and c.warm_start.renamed_share > 0
      and c.engines.executor == providers.SCRIPTED_SEARCH
    ),
    why="names of real passages are not made up; set renamed_share to 0",
    training=True,
  ),
  config_rule.Rule(
    fields=("warm_start.enabled", "agent.prompt_style", "agent.plan_format"),
    broken=lambda c: (
      c.warm_start.enabled
      and (c.agent.prompt_style, c.agent.plan_format) != ("compact", "labelled")
    ),
    why="the warm start teaches labelled plans for compact prompts",
    training=True,
  ),
)
