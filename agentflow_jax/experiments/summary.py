"""Measured runs -> result.json, result.md and figure.svg.

Two intervals, because two things vary: seeds (start model, training and
sampling; Student's t over the seeds' means) and questions (a bootstrap over
the held-out questions, with the seeds as their trials). Differences are
against the first condition with results, seed by seed and question by
question.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentflow_jax.core import errors, printable
from agentflow_jax.evaluation import benchmark_report, statistics
from agentflow_jax.evaluation.report import scales
from agentflow_jax.experiments import (
  figure,
  intervals,
  measures,
  plan,
  table,
)
from agentflow_jax.training import run_dir as run_dir_lib

RESULT = "result.json"
_NONE = "–"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """The runs of each shown condition that have results, and which have not."""

  runs: Mapping[str, Sequence[measures.Measured]]
  missing: tuple[str, ...] = ()


def read(experiment: table.Experiment, places: Sequence[plan.Place]) -> Found:
  """Reads the runs of an experiment that are there."""
  runs: dict[str, list[measures.Measured]] = {}
  missing = []
  for place in places:
    try:
      measured = measures.measure(
        place.evaluation,
        place.seed,
        training_dir=place.training,
        curve=experiment.curve,
      )
    except errors.UserError:
      label = experiment.condition(place.condition).label
      missing.append(f"seed {place.seed}, {label}")
      continue
    runs.setdefault(place.condition, []).append(measured)
  return Found(runs=runs, missing=tuple(missing))


def read_runs(
  experiment: table.Experiment, run_dirs: Sequence[pathlib.Path]
) -> Found:
  """Takes training runs that exist already as one condition of it.

  They count as the first trained condition, and their evaluations before
  training as the untrained one.

  Raises:
    UserError: a directory is no run, two have one seed, or the experiment has
      no condition that is trained just so.
  """
  trained = [
    one
    for one in experiment.shown()
    if one.program == table.TRAIN and not one.overrides and not one.base
  ]
  if not trained:
    raise errors.UserError(
      f"{experiment.name} has no condition that is an ordinary training run"
    )
  untrained = [
    one
    for one in experiment.shown()
    if one.program == table.EVALUATE and not one.start and not one.overrides
  ]
  sources = [(trained[0], "after"), *((one, "before") for one in untrained)]
  seeds = [run_dir_lib.read_config(path).run.seed for path in run_dirs]
  if len(set(seeds)) < len(seeds):
    raise errors.UserError(f"these runs share a seed: {seeds}")
  runs = {
    one.name: [
      measures.measure(path, seed, when=when, curve=experiment.curve)
      for path, seed in zip(run_dirs, seeds, strict=True)
    ]
    for one, when in sources
  }
  missing = [one.label for one in experiment.shown() if one.name not in runs]
  return Found(runs=runs, missing=tuple(missing))


def write(
  out: pathlib.Path,
  experiment: table.Experiment,
  found: Found,
  config_name: str,
) -> str:
  """Writes result.json, result.md and figure.svg; returns the Markdown.

  Raises:
    UserError: there is no result yet.
  """
  if not found.runs:
    raise errors.UserError(f"{experiment.name}: no run has a result yet")
  result = summarise(experiment, found, config_name)
  out.mkdir(parents=True, exist_ok=True)
  text = markdown(result)
  for name, content in (
    (RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n"),
    ("result.md", text),
    ("figure.svg", figure.draw(result, experiment.panels)),
  ):
    run_dir_lib.atomic_write(out / name, content)
  return text


def summarise(
  experiment: table.Experiment, found: Found, config_name: str
) -> dict[str, Any]:
  """All numbers, JSON-able; shares are in [0, 1]."""
  conditions = []
  first: Sequence[measures.Measured] = ()
  for condition in experiment.shown():
    runs = found.runs.get(condition.name, ())
    if not runs:
      continue
    conditions.append(
      {
        "name": condition.name,
        "label": condition.label,
        "means": _means(runs),
        "questions_interval": _questions_interval(runs),
        "difference": _difference(first, runs) if first else None,
        "curves": _curves(runs),
        "runs": [_run(run) for run in runs],
      }
    )
    first = first or runs
  return {
    "experiment": experiment.name,
    "question": experiment.question,
    "config": config_name,
    "seeds": sorted({r.seed for runs in found.runs.values() for r in runs}),
    "curve": experiment.curve,
    "missing": list(found.missing),
    "conditions": conditions,
  }


def _run(run: measures.Measured) -> dict[str, Any]:
  return {
    "seed": run.seed,
    "run_dir": run.run_dir,
    "questions": run.questions,
    "questions_interval": run.interval,
    "values": dict(run.values),
  }


def _means(runs: Sequence[measures.Measured]) -> dict[str, Any]:
  """The estimate of each measure, from the seeds that have it."""
  names = dict.fromkeys(name for run in runs for name in run.values)
  return {
    name: dataclasses.asdict(
      intervals.estimate([r.values[name] for r in runs if name in r.values])
    )
    for name in names
  }


def _questions_interval(
  runs: Sequence[measures.Measured],
) -> list[float] | None:
  right_QT = _right(runs, _shared_questions(runs))
  return statistics.interval(right_QT) if right_QT.size else None


def _difference(
  first: Sequence[measures.Measured], runs: Sequence[measures.Measured]
) -> dict[str, Any] | None:
  """Accuracy less that of the first condition, on seeds that both have."""
  one = {run.seed: run for run in first}
  pairs = [(one[run.seed], run) for run in runs if run.seed in one]
  if not pairs:
    return None
  changes = [
    b.values[measures.ACCURACY] - a.values[measures.ACCURACY] for a, b in pairs
  ]
  found: dict[str, Any] = {
    "over_seeds": dataclasses.asdict(intervals.estimate(changes))
  }
  before, after = [a for a, _ in pairs], [b for _, b in pairs]
  if questions := _shared_questions([*before, *after]):
    found["over_questions"] = statistics.compare(
      _right(before, questions), _right(after, questions)
    )
  return found


def _shared_questions(runs: Sequence[measures.Measured]) -> list[str]:
  """The questions, if all runs were asked the same ones; else none."""
  asked = [set(run.right) for run in runs]
  same = all(one == asked[0] for one in asked)
  return sorted(asked[0]) if same else []


def _right(
  runs: Sequence[measures.Measured], questions: Sequence[str]
) -> np.ndarray:
  """float64 [Q, T], a trial per seed."""
  return np.array(
    [[float(run.right[name]) for run in runs] for name in questions]
  )


def _curves(runs: Sequence[measures.Measured]) -> dict[str, Any]:
  """For each curve, the estimate where every seed has a point."""
  curves = {}
  for name in dict.fromkeys(name for run in runs for name in run.curves):
    points = [dict(run.curves.get(name, ())) for run in runs]
    common = sorted(set(points[0]).intersection(*points[1:]))
    curves[name] = [
      {"iteration": x}
      | dataclasses.asdict(intervals.estimate([one[x] for one in points]))
      for x in common
    ]
  return {name: points for name, points in curves.items() if points}


def markdown(result: Mapping[str, Any]) -> str:
  """The table people read."""
  conditions = result["conditions"]
  names = dict.fromkeys(name for one in conditions for name in one["means"])
  families = [name for name in names if name.startswith(measures.FAMILY)]
  others = [
    name
    for name in (
      measures.BEFORE + measures.ACCURACY,
      measures.GAIN,
      *families,
      measures.TURNS,
      measures.TOOL_ERRORS,
      measures.SAMPLED_TOKENS,
      measures.SECONDS,
    )
    if name in names
  ]
  rows = [
    [
      _plain(one["label"]),
      str(one["means"][measures.ACCURACY]["count"]),
      _estimate(one["means"], measures.ACCURACY),
      _interval(one["questions_interval"]),
      _change(one["difference"]),
      *(_estimate(one["means"], name) for name in others),
    ]
    for one in conditions
  ]
  shown = benchmark_report.Table(
    title=result["question"],
    header=[
      *("condition", "seeds", "held-out accuracy", "over questions"),
      "against the first",
      *map(_head, others),
    ],
    rows=rows,
    note=_note(result),
  )
  return benchmark_report.markdown(
    f"Experiment {result['experiment']}", [shown]
  )


def _head(name: str) -> str:
  if name.startswith(measures.FAMILY):
    return _plain(measures.title(name))
  if name.startswith(measures.BEFORE):
    return f"{measures.title(name.removeprefix(measures.BEFORE))} before"
  return measures.title(name)


def _note(result: Mapping[str, Any]) -> str:
  seeds = ", ".join(map(str, result["seeds"]))
  note = (
    f"Config {_plain(result['config'])}, seeds {seeds}. In brackets 95 % "
    "intervals: Student's t over seeds; in “over questions” a bootstrap over "
    "questions and seeds. Accuracies are of the last weights, never of the "
    "best of several evaluations."
  )
  if result["missing"]:
    # A label may come from a path that a user named.
    note += f" Missing: {'; '.join(map(_plain, result['missing']))}."
  return note


def _plain(text: str) -> str:
  """A name from a file or a path, harmless in Markdown."""
  shown = " ".join(printable.spell_out(text).split())
  for character in "\\`*[]":
    shown = shown.replace(character, f"\\{character}")
  return shown.replace("<", "&lt;")


def _estimate(means: Mapping[str, Any], name: str) -> str:
  if name not in means:
    return _NONE
  write = scales.percent if measures.is_percent(name) else scales.amount
  found = means[name]
  text = write(found["mean"])
  if found["low"] is None:
    return text
  return f"{text} [{write(found['low'])}, {write(found['high'])}]"


def _interval(bounds: Sequence[float] | None) -> str:
  if bounds is None:
    return _NONE
  return f"[{scales.percent(bounds[0])}, {scales.percent(bounds[1])}]"


def _change(difference: Mapping[str, Any] | None) -> str:
  if difference is None:
    return _NONE
  found = difference["over_seeds"]
  points = f"{100 * found['mean']:+.1f}"
  if found["low"] is not None:
    points += f" [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
  return f"{points} points".replace("-", "−")
