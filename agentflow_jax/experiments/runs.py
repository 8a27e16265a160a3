"""A run of an experiment, and the settings that all of its runs share."""

import copy
import dataclasses
import fnmatch
import hashlib
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import (
  config_validation,
  errors,
  flows,
  providers,
  task_specs,
)
from agentflow_jax.experiments import table
from agentflow_jax.training import run_dir as run_dir_lib

ORACLE = "oracle"
# What the plan sets for every run.
_OWN = {"run.seed": "use --seeds", "run.run_dir": "use --out"}
# Keys on which no result depends.
_WHERE_AND_HOW_FAST = tuple(
  key for key in run_dir_lib.MAY_CHANGE if key != "training.iterations"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How an experiment is run.

  `config` is the user's, with overrides; `arguments` are those that gave it
  ("--config=FILE", "--config.KEY=VALUE"), passed on to every run. `given` are
  the overridden keys. `teacher` demonstrates: "oracle" or PROVIDER:MODEL.
  """

  config: config_lib.Config
  arguments: tuple[str, ...]
  given: Collection[str]
  out: pathlib.Path
  bases: pathlib.Path  # start models, shared by experiments
  seeds: tuple[int, ...]
  scripts: pathlib.Path  # the folder launch/
  teacher: str = ORACLE
  sft_lr: float | None = None  # None: config.learner.lr
  sft_epochs: int = 4

  def folder(self, seed: int) -> pathlib.Path:
    return self.out / f"seed{seed}"

  def shared(self) -> dict[str, str]:
    """Keys of what all runs share: compiled programs, and prepared tasks."""
    config = self.config
    cache = config.run.compile_cache_dir or str(self.bases / "compile_cache")
    return {
      "run.compile_cache_dir": cache,
      "tasks.data_dir": config.tasks.data_dir or str(self.bases / "data"),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One process to start; `identity` is what its result depends on."""

  title: str
  kind: str  # runs of one kind take about equally long
  run_dir: pathlib.Path
  command: tuple[str, ...]
  identity: str
  needs: tuple[pathlib.Path, ...] = ()  # run directories, finished before


def resolve(
  config: config_lib.Config, overrides: Mapping[str, Any]
) -> config_lib.Config:
  """A copy of the config with the overrides."""
  made = copy.deepcopy(config)
  for key, value in overrides.items():
    config_validation.put(made, key, value)
  return made


def flags(overrides: Mapping[str, Any]) -> tuple[str, ...]:
  """Config keys as a launch script takes them."""
  return tuple(
    f"--config.{key}={_text(value)}" for key, value in overrides.items()
  )


def digest(
  config: config_lib.Config,
  *,
  without: Collection[str] = (),
  further: tuple[Any, ...] = (),
) -> str:
  """Twelve hex digits of everything a result depends on.

  Args:
    config: of the run.
    without: keys, or patterns of keys, that do not count.
    further: what counts beside the config, as JSON.
  """
  skipped = (*_WHERE_AND_HOW_FAST, *without)
  flat = {
    key: config_validation.get(config, key)
    for key in config_validation.field_types()
    if not any(fnmatch.fnmatchcase(key, pattern) for pattern in skipped)
  }
  text = json.dumps([flat, further], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_given(experiment: table.Experiment, settings: Settings) -> None:
  """Raises UserError where the experiment can not be run as the user says."""
  for key, remedy in _OWN.items():
    if key in settings.given:
      raise errors.UserError(f"--config.{key} does not apply here; {remedy}")
  varied = {
    key
    for condition in experiment.conditions
    for key in (*condition.overrides, *condition.base)
  }
  if clash := sorted(varied.intersection(settings.given)):
    raise errors.UserError(
      f"{experiment.name} varies {clash[0]}: leave out --config.{clash[0]}"
    )
  if "model.preset" in varied and settings.config.model.checkpoint:
    raise errors.UserError(
      f"{experiment.name} compares several models: name them with "
      "--checkpoints=A,B,C, not with --config.model.checkpoint"
    )
  programs = {condition.program for condition in experiment.conditions}
  if table.SFT in programs and settings.teacher == ORACLE:
    _check_oracle(experiment, settings.config)


def _check_oracle(
  experiment: table.Experiment, config: config_lib.Config
) -> None:
  frozen = providers.FROZEN in flows.engine_names(config).values()
  if frozen or config.tasks.train != task_specs.WORLDFACTS:
    raise errors.UserError(
      f"{experiment.name} needs demonstrations, and the oracle shows only "
      "worldfacts with scripted modules; name --teacher=PROVIDER:MODEL"
    )


def _text(value: Any) -> str:
  if isinstance(value, bool):
    return str(value).lower()
  return ",".join(value) if isinstance(value, tuple) else str(value)
