"""RunData -> the lines, markers and stacks that charts draw.

Long runs are condensed to at most `MAX_POINTS` points per line; totals are
always taken over every row.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from agentflow_jax.evaluation.report import charts, run_data, scales

MAX_POINTS = 240
# Parts of a stack that get their own colour; the smallest others are summed.
MAX_PARTS = 6
# A line with at least this many points also gets its running mean, if its
# points stray from that mean by more than this share of its whole range.
SMOOTHED_FROM = 24
_NOISE = 0.02


def iteration_axis(*runs: run_data.RunData) -> scales.Axis:
  """One iteration axis for all charts of the page."""
  found = [
    run_data.iteration(row)
    for run in runs
    for row in (*run.metrics, *run.evaluations)
  ]
  known = [x for x in found if x is not None]
  return scales.iteration_axis(min(known, default=0), max(known, default=0))


def condense(
  rows: Sequence[run_data.Record], limit: int = MAX_POINTS
) -> tuple[run_data.Record, ...]:
  """At most `limit` rows: means over equally many consecutive rows.

  Metrics named `*_max` keep their largest value, so spikes stay visible.
  """
  size = bucket_size(len(rows), limit)
  if size <= 1:
    return tuple(rows)
  return tuple(
    _combined(rows[start : start + size]) for start in range(0, len(rows), size)
  )


def bucket_size(rows: int, limit: int = MAX_POINTS) -> int:
  """How many iterations one condensed row stands for."""
  return math.ceil(rows / limit)


def metric(
  rows: Sequence[run_data.Record],
  name: str,
  title: str,
  color: str,
  *,
  smooth: bool = True,
) -> list[charts.Series]:
  """The metric's line; with `smooth` its running mean, if it strays from it.

  Empty if no row holds a number for it; other rows without one are gaps.
  """
  points = tuple(
    (float(row["iteration"]), run_data.number(row[name]))
    for row in rows
    if name in row
  )
  line = charts.Series(name=title, color=color, points=points)
  if not line.values():
    return []
  if not smooth or len(points) < SMOOTHED_FROM:
    return [line]
  reach = max(2, len(points) // 24)
  means = []
  for index, (x, _) in enumerate(points):
    window = points[max(index - reach, 0) : index + reach + 1]
    means.append((x, _mean([y for _, y in window if y is not None])))
  mean = charts.Series(
    name=f"{title}, mean of {2 * reach + 1}", color=color, points=tuple(means)
  )
  strays = [
    abs(y - middle)
    for (_, y), (_, middle) in zip(points, means, strict=True)
    if y is not None and middle is not None
  ]
  spread = max(line.values()) - min(line.values())
  if math.fsum(strays) <= _NOISE * spread * len(strays):
    return [line]
  return [dataclasses.replace(line, color=f"{color} faint"), mean]


def held_out(
  run: run_data.RunData, field: str, family: str = ""
) -> list[charts.Series]:
  """Evaluation points of `field`; with `family`, of that entry of it."""
  points, bounds = {}, {}
  for evaluation in run.evaluations:
    x = run_data.iteration(evaluation)
    source = run_data.mapping(evaluation.get(field)) if family else evaluation
    y = run_data.number(source.get(family or field))
    if x is None or y is None:
      continue
    points[x] = y
    interval = interval_of(evaluation)
    if field == "accuracy" and interval:
      bounds[x] = interval
  if not points:
    return []
  return [
    charts.Series(
      name="held-out",
      color="held",
      points=tuple(sorted(points.items())),
      markers=True,
      bounds=bounds,
    )
  ]


def interval_of(evaluation: run_data.Record) -> tuple[float, float] | None:
  """The 95 % interval of an evaluation's accuracy, if it has one."""
  ends = run_data.sequence(evaluation.get("interval"))
  known = [y for y in map(run_data.number, ends) if y is not None]
  return (min(known), max(known)) if len(known) == len(ends) == 2 else None


def parts(
  rows: Sequence[run_data.Record], prefix: str, first: Sequence[str] = ()
) -> list[charts.Series]:
  """The metrics under `prefix` as a stack, `first` at the bottom.

  The others follow by size. Beyond MAX_PARTS the smallest are summed into one
  part that says how many it holds.
  """
  totals = part_totals(rows, prefix)
  order = [name for name in first if name in totals]
  order += sorted(set(totals) - set(order), key=lambda n: (-totals[n], n))
  own = order if len(order) <= MAX_PARTS else order[: MAX_PARTS - 1]
  rest = order[len(own) :]
  columns = [(name, [name]) for name in own]
  if rest:
    columns.append((f"{len(rest)} others", rest))
  return [
    charts.Series(
      name=title,
      color=f"c{index}",
      points=tuple(
        (float(row["iteration"]), _sum(row, prefix, names)) for row in rows
      ),
    )
    for index, (title, names) in enumerate(columns, 1)
  ]


def part_totals(
  rows: Sequence[run_data.Record], prefix: str
) -> dict[str, float]:
  """Sum over all rows of each metric under `prefix`."""
  totals: dict[str, float] = {}
  for row in rows:
    for name, value in run_data.under(row, prefix).items():
      known = run_data.number(value)
      if known is not None:
        totals[name] = totals.get(name, 0.0) + known
  return totals


def wall_time_s(rows: Sequence[run_data.Record]) -> float | None:
  """Seconds the run took, from `time_s` (seconds since the process began).

  A resumed run may start its clock again; every stretch between two restarts
  counts with its last value.
  """
  times = [t for row in rows if (t := run_data.number(row.get("time_s")))]
  if not times:
    return None
  restarts = [a for a, b in itertools.pairwise(times) if b < a]
  return math.fsum([*restarts, times[-1]])


def _combined(bucket: Sequence[run_data.Record]) -> run_data.Record:
  row: dict[str, float | str] = {}
  for name in dict.fromkeys(name for r in bucket for name in r):
    values = [run_data.number(r[name]) for r in bucket if name in r]
    known = [value for value in values if value is not None]
    value = max(known, default=None) if name.endswith("_max") else _mean(known)
    row[name] = "nan" if value is None else value
  return row


def _sum(
  row: run_data.Record, prefix: str, names: Sequence[str]
) -> float | None:
  values = [run_data.number(row.get(prefix + name)) for name in names]
  known = [value for value in values if value is not None]
  return math.fsum(known) if known else None


def _mean(values: Sequence[float]) -> float | None:
  return math.fsum(values) / len(values) if values else None
