"""What is measured of a run: run directory -> Measured, from its own files.

Numbers come from evaluations.jsonl and metrics.jsonl of a training run, or
from the result.json of launch/evaluate.py. Which question was answered right
comes from there too, or from the recorded evaluation (rollouts/evaluation),
so that questions can be drawn again (evaluation/statistics.py).
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow_jax.core import errors
from agentflow_jax.evaluation import benchmark_runner
from agentflow_jax.evaluation.report import run_data, series

ACCURACY = "accuracy"
TURNS = "mean_turns"
TOOL_ERRORS = "tool_error_rate"
PARSE_FAILURES = "parse_failure_rate"
PLAN_TOKENS = "completion_tokens"
SAMPLED_TOKENS = "sampled_tokens"
SECONDS = "seconds"
GAIN = "gain"  # accuracy after training less that before it
FAMILY = "accuracy/"  # prefix
BEFORE = "before/"  # prefix: of the evaluation before training

# Of an evaluation, as evaluation/scores.py writes them.
_OF_EVALUATION = (ACCURACY, TURNS, TOOL_ERRORS, PARSE_FAILURES, PLAN_TOKENS)
_PERCENT = (ACCURACY, TOOL_ERRORS, PARSE_FAILURES, GAIN)
TITLES: Mapping[str, str] = {
  ACCURACY: "held-out accuracy",
  TURNS: "mean turns",
  TOOL_ERRORS: "tool calls that fail",
  PARSE_FAILURES: "unreadable plans",
  PLAN_TOKENS: "tokens per plan",
  SAMPLED_TOKENS: "tokens sampled in training",
  SECONDS: "seconds of training",
  GAIN: "gain by training",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """One run of one condition.

  `values` are by measure; what a run does not have is not in it. `interval` is
  the evaluation's own 95 % interval over questions. `curves` has the held-out
  value of every evaluation and the training value of every iteration.
  """

  seed: int
  run_dir: str
  values: Mapping[str, float]
  interval: tuple[float, float] | None = None
  questions: int = 0
  right: Mapping[str, bool] = dataclasses.field(default_factory=dict)
  curves: Mapping[str, Sequence[tuple[float, float]]] = dataclasses.field(
    default_factory=dict
  )


def is_percent(measure: str) -> bool:
  return measure.removeprefix(BEFORE).startswith(_PERCENT)


def title(measure: str) -> str:
  """Example: `title("accuracy/one_hop")` is "one_hop"."""
  return TITLES.get(measure, measure.removeprefix(FAMILY))


def measure(
  run_dir: pathlib.Path,
  seed: int,
  *,
  training_dir: pathlib.Path | None = None,
  when: str = "after",
  curve: str = "",
) -> Measured:
  """Reads a run.

  Args:
    run_dir: of launch/train.py or launch/evaluate.py.
    seed: whose run it is.
    training_dir: the run whose training it is, if another.
    when: "after" training or "before".
    curve: a measure of evaluations whose values over training are wanted.

  Raises:
    UserError: the run has no such evaluation.
  """
  run = run_data.load(run_dir)
  if run.evaluations:
    found = run.evaluation(when)
    right = _right(run.after if when == "after" else run.before)
  else:
    found = _result(run_dir)
    right = _right_of_result(found)
  if found is None or run_data.number(found.get(ACCURACY)) is None:
    raise errors.UserError(f"{run_dir} has no evaluation {when!r}")
  values = _of_evaluation(found)
  before = run.evaluation("before")
  if when == "after":
    if before is not None:
      values |= {BEFORE + k: v for k, v in _of_evaluation(before).items()}
      if BEFORE + ACCURACY in values:
        values[GAIN] = values[ACCURACY] - values[BEFORE + ACCURACY]
    trained = run if training_dir is None else run_data.load(training_dir)
    values |= _of_training(trained.metrics)
  return Measured(
    seed=seed,
    run_dir=str(run_dir),
    values=values,
    interval=series.interval_of(found),
    questions=int(run_data.number(found.get("questions")) or 0),
    right=right,
    curves=_curves(run, curve) if curve else {},
  )


def _result(run_dir: pathlib.Path) -> run_data.Record | None:
  """Of launch/evaluate.py, which writes it when all questions are done."""
  for path in sorted(run_dir.glob(f"*/{benchmark_runner.RESULT}")):
    return run_data.parse(path.read_bytes())
  return None


def _right_of_result(result: run_data.Record | None) -> dict[str, bool]:
  """By question, of its first trial."""
  marks = run_data.mapping((result or {}).get("right"))
  return {
    name: run_data.sequence(trials)[:1] == [1] for name, trials in marks.items()
  }


def _of_evaluation(evaluation: run_data.Record) -> dict[str, float]:
  found = {name: evaluation.get(name) for name in _OF_EVALUATION}
  families = run_data.mapping(evaluation.get("families"))
  found |= {f"{FAMILY}{name}": value for name, value in families.items()}
  return _numbers(found)


def _of_training(metrics: Sequence[run_data.Record]) -> dict[str, float]:
  sampled = _numbers(
    {str(n): row.get("planner_tokens") for n, row in enumerate(metrics)}
  )
  found = {}
  if sampled:
    found[SAMPLED_TOKENS] = math.fsum(sampled.values())
  seconds = series.wall_time_s(metrics)
  if seconds is not None:
    found[SECONDS] = seconds
  return found


def _curves(
  run: run_data.RunData, name: str
) -> dict[str, list[tuple[float, float]]]:
  """Of the evaluations, and of training where it has the same measure."""
  return {
    "held-out": _points(run.evaluations, name),
    "training": _points(run.metrics, name),
  }


def _points(
  rows: Sequence[run_data.Record], name: str
) -> list[tuple[float, float]]:
  points = {}
  for row in rows:
    x, y = run_data.iteration(row), run_data.number(row.get(name))
    if x is not None and y is not None:
      points[x] = y
  return sorted(points.items())


def _right(records: Sequence[run_data.Record]) -> dict[str, bool]:
  """By question; a lost episode has no reward and is wrong."""
  right = {}
  for record in records:
    name = run_data.string(run_data.mapping(record.get("task")).get("id"))
    right[name] = (run_data.number(record.get("reward")) or 0.0) >= 1.0
  return right


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  read = {name: run_data.number(value) for name, value in values.items()}
  return {name: value for name, value in read.items() if value is not None}
