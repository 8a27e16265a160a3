"""Experiment and settings -> the runs to make, in order.

  per seed:  start models -> demonstrations -> each condition's runs

Every run is a launch script with a run directory of its own, so it resumes by
itself. Start models lie beside the experiments, by what they depend on: all
experiments with the same config and seed share them. Nothing is started here.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import config_validation, errors
from agentflow_jax.experiments import runs, table

# Folders in a seed's folder and in the run of an SFT condition.
_DEMONSTRATIONS = "demonstrations"
_EVALUATION = "evaluation"
# What launch/sft.py sets from its flags and refuses as config keys.
_SFT_SETS = (
  *("run.run_dir", "model.checkpoint", "warm_start.enabled", "learner.lr"),
  *("learner.schedule", "learner.warmup_steps", "learner.epochs"),
  *("learner.mini_batch_trajectories", "training.checkpoint_every"),
)
_NOT_OF_EVALUATION = (
  *("model.checkpoint", "model.preset", "training.*", "learner.*"),
  *("warm_start.*", "rollout.*"),
)
# A start model does not depend on them.
_NOT_OF_BASE = ("training.*", "rollout.*", "tasks.evaluation_questions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where a condition's numbers of a seed lie."""

  condition: str
  seed: int
  evaluation: pathlib.Path
  training: pathlib.Path | None = None  # if it is another run


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Start:
  """Weights to go on from: where, whose they are, what has to run before.

  `origin` is the start model they were trained from (or are): frozen modules
  are answered by it.
  """

  path: str
  origin: str
  identity: str
  needs: tuple[pathlib.Path, ...] = ()


def make(
  experiment: table.Experiment, settings: runs.Settings
) -> list[runs.Run]:
  """All runs, each after those it needs.

  Raises:
    ConfigError: a run's config is not valid.
    UserError: an override that the experiment makes itself, nothing to start
      from, or nobody to demonstrate.
  """
  runs.check_given(experiment, settings)
  return [
    run
    for seed in settings.seeds
    for run in _Seed(experiment, settings, seed).everything()
  ]


def places(
  experiment: table.Experiment, settings: runs.Settings
) -> list[Place]:
  """Where to read each shown condition, for every seed."""
  found = []
  for condition in experiment.shown():
    own = condition.program == table.SFT
    for seed in settings.seeds:
      folder = settings.folder(seed) / condition.name
      found.append(
        Place(
          condition=condition.name,
          seed=seed,
          evaluation=folder / _EVALUATION if own else folder,
          training=folder if own else None,
        )
      )
  return found


class _Seed:
  """Makes the runs of one seed."""

  def __init__(
    self, experiment: table.Experiment, settings: runs.Settings, seed: int
  ):
    self._experiment = experiment
    self._settings = settings
    self._seed = seed
    self._folder = settings.folder(seed)
    self._runs: dict[pathlib.Path, runs.Run] = {}
    self._trained: dict[pathlib.Path, _Start] = {}

  def everything(self) -> list[runs.Run]:
    for condition in self._experiment.conditions:
      start = self._start(condition)
      make = {
        table.TRAIN: self._train,
        table.SFT: self._sft,
        table.EVALUATE: self._evaluate,
      }[condition.program]
      make(condition, start, self._folder / condition.name)
    return list(self._runs.values())

  def _start(self, condition: table.Condition) -> _Start:
    if condition.start:
      return self._trained[self._folder / condition.start]
    config = runs.resolve(self._settings.config, condition.base)
    if config.model.checkpoint:
      path = str(pathlib.Path(config.model.checkpoint).absolute())
      return _Start(path=path, origin=path, identity=path)
    if not config.warm_start.enabled:
      raise errors.UserError(
        f"{self._experiment.name} starts from a model: name it with "
        "--config.model.checkpoint, or use a config with a warm start"
      )
    return self._warm_start(condition)

  def _warm_start(self, condition: table.Condition) -> _Start:
    """A training run without iterations; its start model is what we want."""
    own = {
      **table.DEFAULTS,
      "training.iterations": 0,
      "tasks.evaluation_questions": 1,
      **condition.base,
      **self._small(condition),
      "run.seed": self._seed,
    }
    config = runs.resolve(self._settings.config, own)
    config_validation.validate(config)
    identity = runs.digest(config, without=_NOT_OF_BASE)
    run = self._add(
      "train.py",
      own,
      title=f"start model{condition.base and f' of {condition.label}' or ''}",
      kind=f"start {dict(condition.base)}",
      run_dir=self._settings.bases / f"seed{self._seed}-{identity}",
      identity=identity,
    )
    path = str(run.run_dir / "base")
    return _Start(
      path=path, origin=path, identity=identity, needs=(run.run_dir,)
    )

  def _train(
    self, condition: table.Condition, start: _Start, run_dir: pathlib.Path
  ) -> None:
    own = self._own(condition, start)
    config = runs.resolve(self._settings.config, own)
    config_validation.validate(config)
    run = self._add(
      "train.py",
      own,
      title=condition.label,
      kind=f"{condition.program} {dict(condition.base)}",
      run_dir=run_dir,
      identity=runs.digest(
        config, without=("model.checkpoint",), further=(start.identity,)
      ),
      needs=start.needs,
    )
    self._keep(run, start)

  def _evaluate(
    self, condition: table.Condition, start: _Start, run_dir: pathlib.Path
  ) -> None:
    own = {
      **condition.overrides,
      "model.checkpoint": start.origin,
      "warm_start.enabled": False,
      "run.seed": self._seed,
    }
    config = runs.resolve(self._settings.config, own)
    config_validation.validate(config, training=False)
    if "," in config.tasks.evaluation:
      raise errors.UserError(
        f"--config.tasks.evaluation={config.tasks.evaluation}: an experiment "
        "evaluates on one source of questions"
      )
    self._add(
      "evaluate.py",
      own,
      title=f"evaluation of {condition.label}",
      kind=table.EVALUATE,
      run_dir=run_dir,
      identity=runs.digest(
        config, without=_NOT_OF_EVALUATION, further=(start.identity,)
      ),
      needs=start.needs,
      options={
        "benchmark": config.tasks.evaluation,
        "checkpoint": start.path,
        "out": run_dir,
      },
    )

  def _sft(
    self, condition: table.Condition, start: _Start, run_dir: pathlib.Path
  ) -> None:
    """Demonstrations, imitation of them, and an evaluation of the result."""
    settings = self._settings
    shown = self._demonstrations(condition, start)
    own = self._own(condition, start)
    config = runs.resolve(settings.config, own)
    lr = config.learner.lr if settings.sft_lr is None else settings.sft_lr
    run = self._add(
      "sft.py",
      {key: value for key, value in own.items() if key not in _SFT_SETS},
      title=condition.label,
      kind=table.SFT,
      run_dir=run_dir,
      identity=runs.digest(
        config,
        without=("model.checkpoint",),
        further=(start.identity, shown.identity, lr, settings.sft_epochs),
      ),
      needs=(*start.needs, shown.run_dir),
      options={
        "checkpoint": start.path,
        "rollouts": shown.run_dir,
        "out": run_dir,
        "lr": lr,
        "epochs": settings.sft_epochs,
      },
    )
    trained = self._keep(run, start)
    self._evaluate(condition, trained, run_dir / _EVALUATION)

  def _demonstrations(
    self, condition: table.Condition, start: _Start
  ) -> runs.Run:
    """Of as many questions as training asks in its iterations."""
    own = self._own(condition, start)
    if self._settings.teacher != runs.ORACLE:
      own["engines.planner"] = self._settings.teacher
    config = runs.resolve(self._settings.config, own)
    config_validation.validate(config, training=False)
    questions = config.training.iterations * config.rollout.tasks
    run_dir = self._folder / _DEMONSTRATIONS
    return self._add(
      "demonstrate.py",
      own,
      title="demonstrations",
      kind=_DEMONSTRATIONS,
      run_dir=run_dir,
      identity=runs.digest(
        config, without=("model.checkpoint",), further=(questions,)
      ),
      needs=start.needs,
      options={
        "out": run_dir / f"{_DEMONSTRATIONS}.jsonl",
        "questions": questions,
      },
    )

  def _own(self, condition: table.Condition, start: _Start) -> dict[str, Any]:
    """The config keys of a condition's run; the user's defaults stay."""
    defaults = {**table.DEFAULTS, **self._experiment.settings}
    given = self._settings.given
    return {
      **{key: v for key, v in defaults.items() if key not in given},
      **condition.overrides,
      **self._small(condition),
      "model.checkpoint": start.path,
      "warm_start.enabled": False,
      "run.seed": self._seed,
    }

  def _small(self, condition: table.Condition) -> Mapping[str, Any]:
    """What the condition's small planner needs; nothing for other models."""
    return condition.small if self._settings.config.warm_start.enabled else {}

  def _add(
    self,
    script: str,
    own: Mapping[str, Any],
    *,
    title: str,
    kind: str,
    run_dir: pathlib.Path,
    identity: str,
    needs: tuple[pathlib.Path, ...] = (),
    options: Mapping[str, Any] | None = None,
  ) -> runs.Run:
    """A run of a launch script; once, however many conditions ask for it."""
    if run_dir in self._runs:
      return self._runs[run_dir]
    settings = self._settings
    arguments, refused = settings.arguments, ()
    own = {**own, **settings.shared()}
    if script == "train.py":
      own["run.run_dir"] = run_dir
    if script == "sft.py":
      refused = tuple(f"--config.{key}" for key in _SFT_SETS)
    run = runs.Run(
      title=f"seed {self._seed}, {title}",
      kind=kind,
      run_dir=run_dir,
      command=(
        sys.executable,
        str(settings.scripts / script),
        *(a for a in arguments if a.partition("=")[0] not in refused),
        *runs.flags(own),
        *(f"--{name}={value}" for name, value in (options or {}).items()),
      ),
      identity=identity,
      needs=needs,
    )
    self._runs[run_dir] = run
    return run

  def _keep(self, run: runs.Run, start: _Start) -> _Start:
    """What a run trained, for conditions that go on from it."""
    trained = dataclasses.replace(
      start,
      path=str(run.run_dir),
      identity=run.identity,
      needs=(run.run_dir,),
    )
    self._trained[run.run_dir] = trained
    return trained
