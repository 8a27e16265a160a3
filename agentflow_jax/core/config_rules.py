"""Rules that relate config fields to each other: one table, one row each.

A row says which fields it is about, when they conflict and why; the sentence
a user reads is built from the row by core/config_validation.py. A value that
is wrong by itself is no rule but a choice or a range, and lives there.
"""

import dataclasses
from collections.abc import Callable

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import providers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
  """A relation between fields, and the words for when it is broken."""

  fields: tuple[str, ...]
  broken: Callable[[config_lib.Config], bool]
  why: str
  training: bool = False  # True: only a run that trains has to obey


def _is_source(spec: str) -> bool:
  return spec == "worldfacts" or (
    spec.startswith("jsonl:") and len(spec) > len("jsonl:")
  )


def _scripted(config: config_lib.Config) -> bool:
  return providers.SCRIPTED in config.engines.by_role().values()


def _frozen(config: config_lib.Config) -> bool:
  return providers.FROZEN in config.engines.by_role().values()


def _role_rules(role: str) -> tuple["Rule", ...]:
  """What the options of one role may be, given its engine."""

  def options(config: config_lib.Config) -> config_lib.EngineOptions:
    return config.engines.options(role)

  def remote(config: config_lib.Config) -> providers.RemoteModel | None:
    return providers.remote_model(getattr(config.engines, role))

  def changed(config: config_lib.Config, *names: str) -> bool:
    default = config_lib.EngineOptions()
    return any(
      getattr(options(config), name) != getattr(default, name) for name in names
    )

  def refused(config: config_lib.Config) -> bool:
    """A parameter was set that the provider's API does not take."""
    model = remote(config)
    return model is not None and any(
      changed(config, name) and name not in model.provider.parameters
      for name in ("temperature", "top_p")
    )

  def too_hot(config: config_lib.Config) -> bool:
    model = remote(config)
    if model is None or "temperature" not in model.provider.parameters:
      return False
    temperature = options(config).temperature
    if temperature < 0:
      temperature = config.engines.frozen_temperature
    return temperature > model.provider.max_temperature

  def fields(*names: str) -> tuple[str, ...]:
    section = f"engines.{role}"
    return (section, *(f"{section}_options.{name}" for name in names))

  api = ("base_url", "structured", "input_price", "output_price")
  sampling = ("temperature", "top_p", "max_tokens")
  return (
    Rule(
      fields=fields(*api),
      broken=lambda c: remote(c) is None and changed(c, *api),
      why="these options are for a PROVIDER:MODEL",
    ),
    Rule(
      fields=fields(*sampling),
      broken=lambda c: (
        getattr(c.engines, role) in (providers.TRAINABLE, providers.SCRIPTED)
        and changed(c, *sampling)
      ),
      why="the policy is sampled by the sampler section, rules not at all",
    ),
    Rule(
      fields=fields("base_url"),
      broken=lambda c: (
        bool(options(c).base_url)
        and not options(c).base_url.startswith(("http://", "https://"))
      ),
      why="an address starts with http:// or https://",
    ),
    Rule(
      fields=fields("temperature"),
      broken=lambda c: -1 < options(c).temperature < 0,
      why="-1 is engines.frozen_temperature; otherwise it is at least 0",
    ),
    Rule(
      fields=fields("temperature", "top_p"),
      broken=refused,
      why="this provider does not let it be set (core/providers.py)",
    ),
    Rule(
      fields=(*fields("temperature"), "engines.frozen_temperature"),
      broken=too_hot,
      why="this provider does not sample so hot (core/providers.py)",
    ),
    Rule(
      fields=(*fields("max_tokens"), "sampler.max_completion_tokens"),
      broken=lambda c: (
        getattr(c.engines, role) == providers.FROZEN
        and options(c).max_tokens > c.sampler.max_completion_tokens
      ),
      why=(
        "frozen modules are answered by the same sampler, which stops earlier"
      ),
    ),
  )


def _trajectories(config: config_lib.Config) -> int:
  return config.rollout.tasks * config.rollout.group_size


def optimizer_steps(config: config_lib.Config) -> int:
  """Optimizer steps of the whole run, the length of decaying schedules."""
  batch = config.learner.mini_batch_trajectories or _trajectories(config)
  per_epoch = max(1, _trajectories(config) // batch)
  return config.training.iterations * config.learner.epochs * per_epoch


RULES: tuple[Rule, ...] = (
  Rule(
    fields=("model.checkpoint", "model.preset"),
    broken=lambda c: not c.model.checkpoint and not c.model.preset,
    why="name a checkpoint to start from or a preset to start at random",
  ),
  Rule(
    fields=("mesh.data", "mesh.fsdp", "mesh.tensor"),
    broken=lambda c: (
      sum(n == -1 for n in dataclasses.astuple(c.mesh)) > 1
      or any(n != -1 and n < 1 for n in dataclasses.astuple(c.mesh))
    ),
    why="sizes are at least 1, and at most one axis may be -1 (what is left)",
  ),
  Rule(
    fields=("tasks.train",),
    broken=lambda c: not _is_source(c.tasks.train),
    why='must be "worldfacts" or "jsonl:PATH"',
  ),
  Rule(
    fields=("tasks.evaluation",),
    broken=lambda c: not _is_source(c.tasks.evaluation),
    why='must be "worldfacts" or "jsonl:PATH"',
  ),
  Rule(
    fields=("agent.outputs",),
    broken=lambda c: (
      not c.agent.outputs
      or len(set(c.agent.outputs)) < len(c.agent.outputs)
      or bool(set(c.agent.outputs) - {"base", "final", "direct"})
    ),
    why="name at least one of base, final, direct, each once",
  ),
  Rule(
    fields=("agent.prompt_style", "agent.plan_format"),
    broken=lambda c: (
      c.agent.prompt_style == "compact" and c.agent.plan_format == "json"
    ),
    why="compact prompts explain no format, so only labelled plans can come",
  ),
  Rule(
    fields=("agent.memory_tokens", "sampler.max_prompt_tokens"),
    broken=lambda c: c.agent.memory_tokens >= c.sampler.max_prompt_tokens,
    why="the memory must leave room for the rest of the prompt",
  ),
  Rule(
    fields=("agent.max_episode_tokens", "sampler.max_completion_tokens"),
    broken=lambda c: (
      c.agent.max_episode_tokens < c.sampler.max_completion_tokens
    ),
    why="an episode must have tokens for at least one completion",
  ),
  Rule(
    fields=("engines.frozen_max_tokens", "sampler.max_completion_tokens"),
    broken=lambda c: (
      _frozen(c)
      and c.engines.frozen_max_tokens > c.sampler.max_completion_tokens
    ),
    why="frozen modules are answered by the same sampler, which stops earlier",
  ),
  Rule(
    fields=("sampler.prefill_chunk_tokens", "sampler.max_prompt_tokens"),
    broken=lambda c: (
      c.sampler.prefill_chunk_tokens > c.sampler.max_prompt_tokens
    ),
    why="a prefill chunk can not be longer than the longest prompt",
  ),
  Rule(
    fields=(
      "engines.planner",
      "engines.executor",
      "engines.verifier",
      "engines.generator",
      "engines.tool",
      "tasks.train",
      "tasks.evaluation",
    ),
    broken=lambda c: (
      _scripted(c)
      and (c.tasks.train, c.tasks.evaluation) != ("worldfacts", "worldfacts")
    ),
    why="scripted:worldfacts only understands worldfacts questions",
  ),
  Rule(
    fields=("tools.enabled",),
    broken=lambda c: (
      not c.tools.enabled or len(set(c.tools.enabled)) < len(c.tools.enabled)
    ),
    why="name at least one tool, each once",
  ),
  Rule(
    fields=("tools.enabled", "tools.search_index_dir", "tasks.train"),
    broken=lambda c: (
      "wikipedia_search" in c.tools.enabled
      and not c.tools.search_index_dir
      and c.tasks.train != "worldfacts"
    ),
    why="wikipedia_search needs a search_index_dir for other tasks",
  ),
  Rule(
    fields=("tools.python_timeout_s", "tools.call_timeout_s"),
    broken=lambda c: c.tools.python_timeout_s >= c.tools.call_timeout_s,
    why=(
      "slow code must hit its own limit (the model's fault) before the call's "
      "(which masks the trajectory)"
    ),
  ),
  Rule(
    fields=("learner.dual_clip",),
    broken=lambda c: 0 < c.learner.dual_clip <= 1,
    why="0 is off; otherwise it must be greater than 1",
  ),
  Rule(
    fields=("learner.importance_cap",),
    broken=lambda c: 0 < c.learner.importance_cap < 1,
    why="0 is off; otherwise it must be at least 1",
  ),
  Rule(
    fields=("learner.baseline", "learner.normalize_by_std"),
    broken=lambda c: (
      c.learner.baseline == "none" and c.learner.normalize_by_std
    ),
    why="without a baseline there is no spread to divide by; set it to false",
  ),
  Rule(
    fields=("learner.baseline", "learner.refill_rounds"),
    broken=lambda c: (
      c.learner.baseline == "none" and c.learner.refill_rounds > 0
    ),
    why="without a baseline groups of equal rewards are trained, not refilled",
  ),
  Rule(
    fields=("engines.planner",),
    broken=lambda c: c.engines.planner != "trainable",
    why="only a trainable planner can be trained",
    training=True,
  ),
  Rule(
    fields=("sampler.temperature",),
    broken=lambda c: c.sampler.temperature == 0,
    why="greedy members of a group are all equal, so nothing can be learnt",
    training=True,
  ),
  Rule(
    fields=("sampler.top_k", "sampler.top_p", "sampler.min_p"),
    broken=lambda c: (
      (c.sampler.top_k, c.sampler.top_p, c.sampler.min_p) != (0, 1, 0)
    ),
    why=(
      "training needs the untruncated distribution: top_k=0, top_p=1, min_p=0"
    ),
    training=True,
  ),
  Rule(
    fields=("rollout.group_size", "learner.baseline"),
    broken=lambda c: c.rollout.group_size < 2 and c.learner.baseline != "none",
    why="a group of one has no spread, so nothing can be learnt",
    training=True,
  ),
  Rule(
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
  Rule(
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
  Rule(
    fields=("learner.warmup_steps", "learner.schedule", "training.iterations"),
    broken=lambda c: (
      c.learner.schedule != "constant"
      and 0 < optimizer_steps(c) <= c.learner.warmup_steps
    ),
    why="the warm-up is not shorter than the whole schedule",
    training=True,
  ),
  Rule(
    fields=("warm_start.enabled", "model.checkpoint"),
    broken=lambda c: c.warm_start.enabled and bool(c.model.checkpoint),
    why="the warm start begins from random weights, not from a checkpoint",
    training=True,
  ),
  Rule(
    fields=("warm_start.enabled", "tasks.train"),
    broken=lambda c: c.warm_start.enabled and c.tasks.train != "worldfacts",
    why="the warm start is written for worldfacts",
    training=True,
  ),
  Rule(
    fields=("warm_start.enabled", "agent.prompt_style", "agent.plan_format"),
    broken=lambda c: (
      c.warm_start.enabled
      and (c.agent.prompt_style, c.agent.plan_format) != ("compact", "labelled")
    ),
    why="the warm start teaches labelled plans for compact prompts",
    training=True,
  ),
  *(rule for role in config_lib.ENGINE_ROLES for rule in _role_rules(role)),
)
