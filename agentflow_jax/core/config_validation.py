"""Checks a Config once, before anything is built.

Flow: unknown keys -> types -> choices -> engine names -> ranges -> rules that
relate fields.
Each stage reads one table (the rules are in core/config_rules.py); all problems
of the first stage that finds any are reported together, in one line that names
the fields and their values.

What needs more than the config (does the file exist, does the mesh fit the
devices, does the architecture have such heads) is checked by whoever owns it.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import (
  config_rules,
  errors,
  flows,
  learner_presets,
  providers,
)

_DTYPES = ("float32", "bfloat16")

CHOICES: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
  {
    "model.dtype": _DTYPES,
    "model.param_dtype": _DTYPES,
    "model.remat": ("none", "attention", "block", "offload"),
    "agent.flow": tuple(flows.ROLES),
    "agent.prompt_style": ("full", "compact"),
    "agent.plan_format": ("labelled", "json"),
    "tools.google_backend": (
      *("programmable_search", "gemini", "searxng", "retrieve"),
    ),
    "tools.wikipedia_source": ("index", "api"),
    "tools.python_sandbox": ("monty", "bubblewrap"),
    "rollout.replay": ("off", "record", "replay"),
    "learner.preset": tuple(learner_presets.PRESETS),
    "learner.schedule": ("constant", "linear", "cosine"),
    "learner.kl_estimator": ("k1", "k2", "k3"),
    "learner.aggregation": ("flow", "token_mean", "turn_mean", "constant"),
    "learner.ratio": ("token", "sequence"),
    "learner.baseline": ("group_mean", "leave_one_out", "none"),
    "learner.statistics_over": ("trajectories", "turns"),
    "learner.packing": ("tree", "rows"),
  }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
  """Allowed values of a number; `above` excludes the lower end itself."""

  low: float
  high: float = math.inf
  above: bool = False

  def holds(self, value: float) -> bool:
    inside = self.low < value if self.above else self.low <= value
    return inside and value <= self.high and not math.isinf(value)

  def __str__(self):
    text = f"{'>' if self.above else '>='} {self.low:g}"
    return text if math.isinf(self.high) else f"{text} and <= {self.high:g}"


_POSITIVE = Range(0, above=True)
_AT_LEAST_0 = Range(0)
_AT_LEAST_1 = Range(1)

_OPTIONS = {
  "temperature": Range(-1),  # -1 inherits; see config_rules.py
  "top_p": Range(0, 1, above=True),
  "max_tokens": _AT_LEAST_0,
  "input_price": _AT_LEAST_0,
  "output_price": _AT_LEAST_0,
}

RANGES: Mapping[str, Range] = types.MappingProxyType(
  {
    f"engines.{role}_options.{name}": allowed
    for role in config_lib.ENGINE_ROLES
    for name, allowed in _OPTIONS.items()
  }
  | {
    "run.seed": Range(0, 2**32 - 1),
    "model.lora.rank": _AT_LEAST_0,
    "model.lora.alpha": _POSITIVE,
    "tasks.evaluation_questions": _AT_LEAST_0,
    "agent.max_turns": _AT_LEAST_1,
    "agent.evaluation_max_turns": _AT_LEAST_1,
    "agent.max_calls_per_turn": _AT_LEAST_1,
    "agent.max_episode_tokens": _AT_LEAST_1,
    "agent.episode_timeout_s": _POSITIVE,
    "agent.turn_timeout_s": _POSITIVE,
    "agent.max_parse_failures": _AT_LEAST_1,
    "agent.memory_tokens": _AT_LEAST_1,
    "engines.call_timeout_s": _POSITIVE,
    "engines.retries": _AT_LEAST_0,
    "engines.frozen_temperature": _AT_LEAST_0,
    "engines.frozen_max_tokens": _AT_LEAST_1,
    "engines.max_concurrent_calls": _AT_LEAST_1,
    "engines.circuit_failures": _AT_LEAST_1,
    "engines.circuit_pause_s": _POSITIVE,
    "tools.call_timeout_s": _POSITIVE,
    "tools.max_output_chars": _AT_LEAST_1,
    "tools.max_output_tokens": _AT_LEAST_1,
    "tools.search_top_k": _AT_LEAST_1,
    "tools.search_passage_chars": _AT_LEAST_0,
    "tools.python_timeout_s": _POSITIVE,
    "tools.python_memory_mb": _AT_LEAST_1,
    "tools.python_max_output_chars": _AT_LEAST_1,
    "sampler.temperature": _AT_LEAST_0,
    "sampler.top_k": _AT_LEAST_0,
    "sampler.top_p": Range(0, 1, above=True),
    "sampler.min_p": Range(0, 1),
    "sampler.max_prompt_tokens": _AT_LEAST_1,
    "sampler.max_completion_tokens": _AT_LEAST_1,
    "sampler.slots": _AT_LEAST_1,
    "sampler.decode_steps": _AT_LEAST_1,
    "sampler.prefill_chunk_tokens": _AT_LEAST_1,
    "rollout.tasks": _AT_LEAST_1,
    "rollout.group_size": _AT_LEAST_1,
    "rollout.max_concurrent_episodes": _AT_LEAST_1,
    "rollout.timeout_s": _POSITIVE,
    "rollout.min_group": _AT_LEAST_1,
    "rollout.record_every": _AT_LEAST_1,
    "learner.lr": _AT_LEAST_0,
    "learner.warmup_steps": _AT_LEAST_0,
    "learner.b1": Range(0, 0.999999),
    "learner.b2": Range(0, 0.999999999),
    "learner.eps": _POSITIVE,
    "learner.weight_decay": _AT_LEAST_0,
    "learner.max_grad_norm": _POSITIVE,
    "learner.mini_batch_trajectories": _AT_LEAST_0,
    "learner.epochs": _AT_LEAST_1,
    "learner.clip_low": Range(0, 1, above=True),
    "learner.clip_high": _POSITIVE,
    "learner.dual_clip": _AT_LEAST_0,
    "learner.kl_coefficient": _AT_LEAST_0,
    "learner.entropy_coefficient": _AT_LEAST_0,
    "learner.importance_cap": _AT_LEAST_0,
    "learner.refill_rounds": Range(0, 16),
    "learner.row_tokens": _AT_LEAST_1,
    "learner.micro_batch_rows": _AT_LEAST_1,
    "learner.loss_chunk_tokens": _AT_LEAST_1,
    "learner.max_non_finite_steps": _AT_LEAST_1,
    "learner.max_drift": _AT_LEAST_0,
    "warm_start.vocab_size": Range(260),  # 256 bytes and the specials
    "warm_start.copy_steps": _AT_LEAST_0,
    "warm_start.copy_batch_tokens": _AT_LEAST_1,
    "warm_start.copy_lr": _POSITIVE,
    "warm_start.traces": _AT_LEAST_1,
    "warm_start.plans_per_prompt": _AT_LEAST_1,
    "warm_start.imitation_steps": _AT_LEAST_0,
    "warm_start.imitation_rows": _AT_LEAST_1,
    "warm_start.imitation_lr": _POSITIVE,
    "warm_start.renamed_share": Range(0, 1),
    "training.iterations": _AT_LEAST_0,
    "training.max_staleness": Range(0, 1),
    "training.evaluate_every": _AT_LEAST_0,
    "training.checkpoint_every": _AT_LEAST_1,
    "training.keep_last": _AT_LEAST_1,
  }
)


def validate(config: config_lib.Config, *, training: bool = True) -> None:
  """Checks the whole config.

  Args:
    config: as it will be used; nothing may write to it afterwards.
    training: False leaves out the rules that only bind a run that trains, so
      that an evaluation may sample with top_p or a frozen planner.

  Raises:
    ConfigError: one line with every problem of the first failing stage.
  """
  stages = (
    _unknown_keys(config, ""),
    _wrong_types(config),
    _wrong_choices(config),
    _wrong_engines(config),
    _out_of_range(config),
    _broken_rules(config, training),
  )
  for stage in stages:  # lazy: a later stage trusts the earlier ones
    problems = list(stage)
    if problems:
      raise errors.ConfigError("; ".join(problems))


def field_types() -> dict[str, Any]:
  """Every key of the config ("learner.lr") with its annotated type."""
  return dict(_leaves(config_lib.Config, ""))


def nearest(name: str, known: Iterable[str]) -> str:
  """The known name most like `name`, comparing last components first.

  Example: "learner.lrr", "lr" and "train.lr" all give "learner.lr".
  """

  def likeness(candidate: str) -> tuple[float, float]:
    last = difflib.SequenceMatcher(
      None, name.rpartition(".")[2], candidate.rpartition(".")[2]
    )
    whole = difflib.SequenceMatcher(None, name, candidate)
    return (last.ratio() + whole.ratio(), whole.ratio())

  return max(known, key=likeness)


def get(config: config_lib.Config, path: str) -> Any:
  """The value at a dotted path."""
  value: Any = config
  for name in path.split("."):
    value = getattr(value, name)
  return value


def put(config: config_lib.Config, path: str, value: Any) -> None:
  """Sets the value at a dotted path, which must exist."""
  section, _, name = path.rpartition(".")
  setattr(get(config, section), name, value)


def describe(expected: Any) -> str:
  """A field's type in words, for messages."""
  words = {int: "an integer", float: "a number", str: "a string"}
  words[bool] = "true or false"
  return words.get(expected, "a tuple of strings")


def _leaves(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
  hints = typing.get_type_hints(section)
  for field in dataclasses.fields(section):
    if dataclasses.is_dataclass(hints[field.name]):
      yield from _leaves(hints[field.name], f"{prefix}{field.name}.")
    else:
      yield f"{prefix}{field.name}", hints[field.name]


def _unknown_keys(section: Any, prefix: str) -> Iterator[str]:
  """Attributes that a config file set beside the declared fields."""
  declared = typing.get_type_hints(type(section))
  for name in vars(section):
    if name not in declared:
      yield unknown_key(f"{prefix}{name}")
  for name, kind in declared.items():
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
      child = getattr(section, name)
      if isinstance(child, kind):
        yield from _unknown_keys(child, f"{prefix}{name}.")
      else:
        yield f"config section {prefix + name!r} was overwritten by {child!r}"


def unknown_key(key: str) -> str:
  """The sentence about a key that does not exist."""
  suggestion = nearest(key, field_types())
  return f"unknown config key {key!r}; nearest: {suggestion!r}"


def _wrong_types(config: config_lib.Config) -> Iterator[str]:
  for path, expected in field_types().items():
    value = get(config, path)
    if not _has_type(value, expected):
      yield f"{path} must be {describe(expected)}, got {value!r}"


def _has_type(value: Any, expected: Any) -> bool:
  if expected is float:  # 1 is as good as 1.0, True is not
    return isinstance(value, int | float) and not isinstance(value, bool)
  if expected is int:
    return isinstance(value, int) and not isinstance(value, bool)
  if expected in (bool, str):
    return isinstance(value, expected)
  return isinstance(value, tuple) and all(isinstance(v, str) for v in value)


def _wrong_choices(config: config_lib.Config) -> Iterator[str]:
  for path, choices in CHOICES.items():
    if get(config, path) not in choices:
      yield f"{path}={get(config, path)!r} is not one of {', '.join(choices)}"


def _wrong_engines(config: config_lib.Config) -> Iterator[str]:
  for role in config_lib.ENGINE_ROLES:
    name = getattr(config.engines, role)
    if providers.is_known(name) or (role == config_lib.JUDGE and not name):
      continue
    provider, colon, _ = name.partition(":")
    # A model may be called anything; what is scripted, only a few things.
    scripted = any(
      rules.startswith(f"{provider}:") for rules in providers.SCRIPTED
    )
    written = name if scripted else f"{provider}{colon}"
    likely = nearest(written, providers.known_forms())
    if likely.endswith(":"):
      likely += "MODEL"
    yield (
      f"engines.{role}={name!r} is no engine; nearest: {likely!r} (known: "
      f"{', '.join(providers.LOCAL)}, and PROVIDER:MODEL with "
      f"{', '.join(providers.PROVIDERS)})"
    )


def _out_of_range(config: config_lib.Config) -> Iterator[str]:
  for path, allowed in RANGES.items():
    if not allowed.holds(get(config, path)):
      yield f"{path}={get(config, path)!r} must be {allowed}"


def _broken_rules(config: config_lib.Config, training: bool) -> Iterator[str]:
  for rule in config_rules.RULES:
    if (training or not rule.training) and rule.broken(config):
      values = ", ".join(
        f"{path}={get(config, path)!r}" for path in rule.fields
      )
      yield f"{values}: {rule.why}"
