"""Rules that relate config fields to each other: one table, one row each.

A row says which fields it is about, when they conflict and why; the sentence
a user reads is built from the row by core/config_validation.py. A value that
is wrong by itself is no rule but a choice or a range, and lives there.
"""

import dataclasses

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import (
  config_rule,
  engine_rules,
  flows,
  lora_config,
  providers,
  task_specs,
  warm_start_rules,
)

_SOURCES = (
  'must be "worldfacts", "jsonl:PATH", "tfds:NAME" or '
  '"mix:SPEC@WEIGHT@LIMIT,..."'
)


def _is_source(spec: str) -> bool:
  try:
    task_specs.parse(spec)
  except ValueError:
    return False
  return True


def _scripted(config: config_lib.Config) -> bool:
  names = flows.engine_names(config).values()
  return providers.SCRIPTED_WORLDFACTS in names


def _frozen(config: config_lib.Config) -> bool:
  return providers.FROZEN in flows.engine_names(config).values()


def _trajectories(config: config_lib.Config) -> int:
  return config.rollout.tasks * config.rollout.group_size


def optimizer_steps(config: config_lib.Config) -> int:
  """Optimizer steps of the whole run, the length of decaying schedules."""
  batch = config.learner.mini_batch_trajectories or _trajectories(config)
  per_epoch = max(1, _trajectories(config) // batch)
  return config.training.iterations * config.learner.epochs * per_epoch


RULES: tuple[config_rule.Rule, ...] = (
  config_rule.Rule(
    fields=("model.checkpoint", "model.preset"),
    broken=lambda c: not c.model.checkpoint and not c.model.preset,
    why="name a checkpoint to start from or a preset to start at random",
  ),
  config_rule.Rule(
    fields=("model.lora.target_modules",),
    broken=lambda c: (
      not c.model.lora.target_modules
      or len(set(c.model.lora.target_modules))
      < len(c.model.lora.target_modules)
      or bool(set(c.model.lora.target_modules) - set(lora_config.TARGETS))
    ),
    why=f"name some of {', '.join(lora_config.TARGETS)}, each once",
  ),
  config_rule.Rule(
    fields=("mesh.data", "mesh.fsdp", "mesh.tensor"),
    broken=lambda c: (
      sum(n == -1 for n in dataclasses.astuple(c.mesh)) > 1
      or any(n != -1 and n < 1 for n in dataclasses.astuple(c.mesh))
    ),
    why="sizes are at least 1, and at most one axis may be -1 (what is left)",
  ),
  config_rule.Rule(
    fields=("tasks.train",),
    broken=lambda c: not _is_source(c.tasks.train),
    why=_SOURCES,
  ),
  config_rule.Rule(
    fields=("tasks.evaluation",),
    broken=lambda c: not _is_source(c.tasks.evaluation),
    why=_SOURCES,
  ),
  config_rule.Rule(
    fields=("agent.outputs",),
    broken=lambda c: (
      not c.agent.outputs
      or len(set(c.agent.outputs)) < len(c.agent.outputs)
      or bool(set(c.agent.outputs) - {"base", "final", "direct"})
    ),
    why="name at least one of base, final, direct, each once",
  ),
  config_rule.Rule(
    fields=("agent.prompt_style", "agent.plan_format"),
    broken=lambda c: (
      c.agent.prompt_style == "compact" and c.agent.plan_format == "json"
    ),
    why="compact prompts explain no format, so only labelled plans can come",
  ),
  config_rule.Rule(
    fields=("agent.memory_tokens", "sampler.max_prompt_tokens"),
    broken=lambda c: (
      c.agent.flow == flows.MODULAR
      and c.agent.memory_tokens >= c.sampler.max_prompt_tokens
    ),
    why="the memory must leave room for the rest of the prompt",
  ),
  config_rule.Rule(
    fields=("agent.max_episode_tokens", "sampler.max_completion_tokens"),
    broken=lambda c: (
      c.agent.max_episode_tokens < c.sampler.max_completion_tokens
    ),
    why="an episode must have tokens for at least one completion",
  ),
  config_rule.Rule(
    fields=("engines.frozen_max_tokens", "sampler.max_completion_tokens"),
    broken=lambda c: (
      _frozen(c)
      and c.engines.frozen_max_tokens > c.sampler.max_completion_tokens
    ),
    why=engine_rules.SAME_SAMPLER,
  ),
  config_rule.Rule(
    fields=("sampler.prefill_chunk_tokens", "sampler.max_prompt_tokens"),
    broken=lambda c: (
      c.sampler.prefill_chunk_tokens > c.sampler.max_prompt_tokens
    ),
    why="a prefill chunk can not be longer than the longest prompt",
  ),
  config_rule.Rule(
    fields=(
      "engines.planner",
      "engines.executor",
      "engines.verifier",
      "engines.generator",
      "engines.tool",
      "engines.policy",
      "tasks.train",
      "tasks.evaluation",
    ),
    broken=lambda c: (
      _scripted(c)
      and (c.tasks.train, c.tasks.evaluation) != ("worldfacts", "worldfacts")
    ),
    why="scripted:worldfacts only understands worldfacts questions",
  ),
  config_rule.Rule(
    fields=("tools.enabled", "tools.mcp_servers"),
    broken=lambda c: not c.tools.enabled and not c.tools.mcp_servers,
    why="name at least one tool, or an MCP server",
  ),
  config_rule.Rule(
    fields=("tools.enabled",),
    broken=lambda c: len(set(c.tools.enabled)) < len(c.tools.enabled),
    why="name each tool once",
  ),
  config_rule.Rule(
    fields=("tools.enabled", "tools.search_index_dir", "tasks.train"),
    broken=lambda c: (
      "wikipedia_search" in c.tools.enabled
      and c.tools.wikipedia_source == "index"
      and not c.tools.search_index_dir
      and c.tasks.train != "worldfacts"
    ),
    why="wikipedia_search needs a search_index_dir for other tasks",
  ),
  config_rule.Rule(
    fields=("tools.embedding_url", "tools.embedding_model"),
    broken=lambda c: (
      bool(c.tools.embedding_url) != bool(c.tools.embedding_model)
    ),
    why="an embedding endpoint needs both its address and a model's name",
  ),
  config_rule.Rule(
    fields=("tools.enabled", "tools.google_backend", "tools.google_url"),
    broken=lambda c: (
      "google_search" in c.tools.enabled
      and c.tools.google_backend in ("searxng", "retrieve")
      and not c.tools.google_url
    ),
    why="say where the service is",
  ),
  config_rule.Rule(
    fields=("tools.python_timeout_s", "tools.call_timeout_s"),
    broken=lambda c: c.tools.python_timeout_s >= c.tools.call_timeout_s,
    why=(
      "slow code must hit its own limit (the model's fault) before the call's "
      "(which masks the trajectory)"
    ),
  ),
  config_rule.Rule(
    fields=("rollout.replay", "rollout.replay_dir"),
    broken=lambda c: (c.rollout.replay == "off") == bool(c.rollout.replay_dir),
    why="record and replay need a directory, and only they use one",
  ),
  config_rule.Rule(
    fields=("learner.dual_clip",),
    broken=lambda c: 0 < c.learner.dual_clip <= 1,
    why="0 is off; otherwise it must be greater than 1",
  ),
  config_rule.Rule(
    fields=("learner.importance_cap",),
    broken=lambda c: 0 < c.learner.importance_cap < 1,
    why="0 is off; otherwise it must be at least 1",
  ),
  config_rule.Rule(
    fields=("learner.baseline", "learner.normalize_by_std"),
    broken=lambda c: (
      c.learner.baseline == "none" and c.learner.normalize_by_std
    ),
    why="without a baseline there is no spread to divide by; set it to false",
  ),
  config_rule.Rule(
    fields=("learner.baseline", "learner.refill_rounds"),
    broken=lambda c: (
      c.learner.baseline == "none" and c.learner.refill_rounds > 0
    ),
    why="without a baseline groups of equal rewards are trained, not refilled",
  ),
  config_rule.Rule(
    fields=("sampler.temperature",),
    broken=lambda c: c.sampler.temperature == 0,
    why="greedy members of a group are all equal, so nothing can be learnt",
    training=True,
  ),
  config_rule.Rule(
    fields=("sampler.top_k", "sampler.top_p", "sampler.min_p"),
    broken=lambda c: (
      (c.sampler.top_k, c.sampler.top_p, c.sampler.min_p) != (0, 1, 0)
    ),
    why=(
      "training needs the untruncated distribution: top_k=0, top_p=1, min_p=0"
    ),
    training=True,
  ),
  config_rule.Rule(
    fields=("rollout.group_size", "learner.baseline"),
    broken=lambda c: c.rollout.group_size < 2 and c.learner.baseline != "none",
    why="a group of one has no spread, so nothing can be learnt",
    training=True,
  ),
  config_rule.Rule(
    fields=("rollout.min_group", "rollout.group_size"),
    broken=lambda c: c.rollout.min_group > c.rollout.group_size,
    why="a group can not have more members left than it has",
    training=True,
  ),
  config_rule.Rule(
    fields=(
      "learner.mini_batch_trajectories",
      "rollout.tasks",
      "rollout.group_size",
    ),
    broken=lambda c: (
      c.learner.mini_batch_trajectories > 0
      and _trajectories(c) % c.learner.mini_batch_trajectories != 0
    ),
    why="the mini-batch must divide tasks * group_size",
    training=True,
  ),
  config_rule.Rule(
    fields=(
      "learner.row_tokens",
      "sampler.max_prompt_tokens",
      "sampler.max_completion_tokens",
    ),
    broken=lambda c: (
      c.learner.row_tokens
      < c.sampler.max_prompt_tokens + c.sampler.max_completion_tokens
    ),
    why="a row must hold the longest prompt and its completion",
    training=True,
  ),
  config_rule.Rule(
    fields=("learner.warmup_steps", "learner.schedule", "training.iterations"),
    broken=lambda c: (
      c.learner.schedule != "constant"
      and 0 < optimizer_steps(c) <= c.learner.warmup_steps
    ),
    why="the warm-up is not shorter than the whole schedule",
    training=True,
  ),
  config_rule.Rule(
    fields=("training.max_staleness", "mesh.tensor"),
    broken=lambda c: c.training.max_staleness > 0 and c.mesh.tensor != 1,
    why=(
      "sampler and learner would run collectives on the same devices at the "
      "same time, which can deadlock; use data and fsdp"
    ),
    training=True,
  ),
  config_rule.Rule(
    fields=(
      "training.max_staleness",
      "learner.recompute_behavior",
      "learner.importance_cap",
    ),
    broken=lambda c: (
      c.training.max_staleness > 0
      and c.learner.recompute_behavior
      and c.learner.importance_cap == 0
    ),
    why=(
      "a ratio to recomputed logprobs does not see that the sampler was "
      "behind; set an importance_cap"
    ),
    training=True,
  ),
  *warm_start_rules.RULES,
  *flows.RULES,
  engine_rules.JUDGE,
  *(
    rule
    for role in config_lib.ENGINE_ROLES
    for rule in engine_rules.of_role(role)
  ),
)
