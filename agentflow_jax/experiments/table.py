"""The experiments: one entry each, all that differs between conditions.

A condition is a program of launch/ and the config keys in which it differs.
All conditions of a seed start from one start model, unless `base` says what
theirs differs in; a condition with `start` goes on from an earlier one. To add
an experiment, add an entry; plan.py makes the runs, summary.py the numbers,
figure.py the picture, and docs/experiments.md says what the paper found.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import errors
from agentflow_jax.experiments import measures

TRAIN = "train"  # launch/train.py
SFT = "sft"  # launch/demonstrate.py, launch/sft.py, then an evaluation
EVALUATE = "evaluate"  # launch/evaluate.py


def _nothing() -> Any:
  return dataclasses.field(default_factory=dict)


# Of every run, where neither the user nor an experiment says otherwise: what
# is measured is the last checkpoint, never the best of several held-out scores.
DEFAULTS: Mapping[str, Any] = types.MappingProxyType(
  {
    "training.iterations": 24,
    "training.evaluate_first": False,
    "training.evaluate_every": 0,
    "training.keep_best": False,
    "training.keep_last": 1,
    "training.tensorboard": False,
    "training.export_hf": False,
    "training.write_report": False,
    "rollout.record_every": 8,
  }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
  """One way to make or to use a planner, run once per seed.

  Example: `Condition(name="turns_3", label="3 turns", program=EVALUATE,
  start="trained", overrides={"agent.evaluation_max_turns": 3})`.
  """

  name: str  # of its folder
  label: str
  program: str
  overrides: Mapping[str, Any] = _nothing()  # config keys and values
  start: str = ""  # the condition it goes on from; "" = the start model
  base: Mapping[str, Any] = _nothing()  # what its start model differs in
  # What both need where the start model is a small one of ours.
  small: Mapping[str, Any] = _nothing()
  shown: bool = True  # False: only made for others to go on from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """A question and the conditions that answer it.

  `settings` are config keys of all conditions. `panels` and `curve` are
  measures; a curve is drawn over training. `minutes` is roughly what three
  seeds take on two CPU cores, start models included: estimated from the times
  of the quickstart.
  """

  name: str
  question: str
  conditions: tuple[Condition, ...]
  minutes: int
  settings: Mapping[str, Any] = _nothing()
  panels: tuple[str, ...] = (measures.ACCURACY,)
  curve: str = ""
  per_checkpoint: bool = False  # --checkpoints replaces the conditions

  def shown(self) -> tuple[Condition, ...]:
    return tuple(one for one in self.conditions if one.shown)

  def condition(self, name: str) -> Condition:
    return next(one for one in self.conditions if one.name == name)


def _turns(budget: int) -> Condition:
  return Condition(
    name=f"turns_{budget}",
    label="1 turn" if budget == 1 else f"{budget} turns",
    program=EVALUATE,
    start="trained",
    overrides={"agent.evaluation_max_turns": budget},
  )


def _size(name: str, label: str, preset: str) -> Condition:
  return Condition(
    name=name, label=label, program=TRAIN, base={"model.preset": preset}
  )


def _loss(statistics: str, aggregation: str, label: str) -> Condition:
  return Condition(
    name=f"{statistics}_{aggregation}",
    label=label,
    program=TRAIN,
    overrides={
      "learner.statistics_over": statistics,
      "learner.aggregation": aggregation,
    },
  )


# One policy instead of four modules. It writes its numbers out: pieces are
# longer than plans.
_ONE_POLICY = {"agent.flow": "monolithic", "learner.trained_roles": ("policy",)}
_LONG_PIECES = {
  "sampler.max_prompt_tokens": 320,
  "sampler.max_completion_tokens": 24,
  "learner.row_tokens": 352,
}

_EXPERIMENTS = (
  Experiment(
    name="training",
    question=(
      "Does training in the live loop beat imitating demonstrations, and both "
      "beat no training?"
    ),
    conditions=(
      Condition(name="untrained", label="Untrained", program=EVALUATE),
      Condition(name="sft", label="SFT on demonstrations", program=SFT),
      Condition(name="flow_grpo", label="Flow-GRPO", program=TRAIN),
    ),
    panels=(measures.ACCURACY, measures.TURNS, measures.TOOL_ERRORS),
    minutes=35,
  ),
  Experiment(
    name="flows",
    question=(
      "Does a planner among modules learn more from as many episodes than one "
      "policy that does everything in one text?"
    ),
    conditions=(
      Condition(name="modular", label="Modular", program=TRAIN),
      Condition(
        name="monolithic",
        label="Monolithic",
        program=TRAIN,
        base=_ONE_POLICY,
        overrides=_ONE_POLICY,
        small=_LONG_PIECES,
      ),
    ),
    settings={"training.evaluate_first": True},
    panels=(measures.ACCURACY, measures.TURNS, measures.TOOL_ERRORS),
    minutes=60,
  ),
  Experiment(
    name="turn_budget",
    question="Does a trained planner use more turns well when it may?",
    conditions=(
      Condition(name="trained", label="Flow-GRPO", program=TRAIN, shown=False),
      *map(_turns, (1, 2, 3, 5, 10)),
    ),
    panels=(measures.ACCURACY, measures.TURNS),
    minutes=40,
  ),
  Experiment(
    name="tool_errors",
    question="Do tool calls fail less often as training goes on?",
    conditions=(Condition(name="flow_grpo", label="Flow-GRPO", program=TRAIN),),
    settings={"training.evaluate_first": True, "training.evaluate_every": 4},
    panels=(measures.TOOL_ERRORS,),
    curve=measures.TOOL_ERRORS,
    minutes=30,
  ),
  Experiment(
    name="planner_size",
    question="Does Flow-GRPO help planners of three sizes?",
    conditions=(
      _size("small", "Small (2 layers of 96)", "worldfacts_planner_small"),
      _size("medium", "Medium (3 layers of 128)", "worldfacts_planner"),
      _size("large", "Large (4 layers of 160)", "worldfacts_planner_large"),
    ),
    settings={"training.evaluate_first": True},
    minutes=85,
    per_checkpoint=True,
  ),
  Experiment(
    name="statistics",
    question=(
      "Does it matter whether rewards are compared over trajectories or turns, "
      "and how the loss weighs turns and tokens?"
    ),
    conditions=(
      _loss("trajectories", "flow", "Trajectories, flow (paper)"),
      _loss("turns", "flow", "Turns, flow"),
      _loss("trajectories", "token_mean", "Trajectories, token mean"),
      _loss("turns", "token_mean", "Turns, token mean (paper's code)"),
      _loss("trajectories", "turn_mean", "Trajectories, turn mean"),
      _loss("trajectories", "constant", "Trajectories, constant"),
    ),
    panels=(measures.ACCURACY, measures.TURNS),
    minutes=65,
  ),
)
EXPERIMENTS: Mapping[str, Experiment] = types.MappingProxyType(
  {one.name: one for one in _EXPERIMENTS}
)


def per_checkpoint(
  experiment: Experiment, checkpoints: Mapping[str, str]
) -> Experiment:
  """The experiment with one trained condition per model directory.

  Args:
    experiment: one that asks about several start models.
    checkpoints: label -> directory.

  Raises:
    UserError: this experiment has one start model.
  """
  if not experiment.per_checkpoint:
    able = [one.name for one in _EXPERIMENTS if one.per_checkpoint]
    raise errors.UserError(
      f"{experiment.name} has one start model: name it with "
      f"--config.model.checkpoint; --checkpoints is for {', '.join(able)}"
    )
  conditions = tuple(
    Condition(
      name=f"model_{number}",
      label=label,
      program=TRAIN,
      base={"model.checkpoint": path},
    )
    for number, (label, path) in enumerate(checkpoints.items(), 1)
  )
  return dataclasses.replace(experiment, conditions=conditions)
