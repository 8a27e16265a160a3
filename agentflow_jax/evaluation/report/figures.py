"""RunData -> figures: cards with a title, a chart, its legend and its values.

What a run did not record becomes a sentence, not an empty chart.
"""

import dataclasses
from collections.abc import Sequence

from agentflow_jax.evaluation.report import (
  charts,
  markup,
  panels,
  run_data,
  scales,
)
from agentflow_jax.evaluation.report import series as series_lib

tag = markup.tag

# Families that get a chart of their own.
MAX_FAMILIES = 12
# From the bottom of the stack to its top; others follow by size.
_PHASES = ("rollout", "learn", "evaluate", "checkpoint")


def figure(
  title: str, caption: str, *body: markup.Child, css: str = ""
) -> markup.Html:
  """A titled card."""
  return tag(
    "figure",
    tag("figcaption", tag("h3", title), tag("p", caption) if caption else None),
    *body,
    class_=f"card {css}".strip(),
  )


def panel(
  spec: panels.Panel, run: run_data.RunData, rows: Sequence[run_data.Record]
) -> markup.Html:
  """The figure of one entry of the tables above."""
  lines = [s for m in spec.metrics for s in series_lib.metric(rows, *m)]
  if spec.evaluation:
    lines += series_lib.held_out(run, spec.evaluation)
  if not lines:
    names = " or ".join(name for name, _, _ in spec.metrics)
    return missing(spec.title, f"This run recorded no {names}.")
  return line_figure(
    spec.title,
    spec.caption,
    lines,
    charts.Frame(x_axis=series_lib.iteration_axis(run)),
    unit=spec.unit,
    percent=spec.percent,
    log=spec.log,
  )


def learning(
  run: run_data.RunData, rows: Sequence[run_data.Record]
) -> list[markup.Html]:
  """Reward and accuracy: all questions wide, then each family."""
  overall = series_lib.metric(rows, "reward", "training reward", "train")
  if any(row.get("accuracy") != row.get("reward") for row in rows):
    overall += series_lib.metric(rows, "accuracy", "training accuracy", "c4")
  overall += series_lib.held_out(run, "accuracy")
  if not overall:
    sentence = "This run recorded neither rewards nor evaluations."
    return [missing("All questions", sentence)]
  frame = charts.Frame(x_axis=series_lib.iteration_axis(run), height=250)
  caption = (
    "Mean reward of the training attempts, and accuracy on held-out questions "
    "with its 95% interval."
  )
  figures = [score_figure("All questions", caption, overall, frame, css="wide")]
  frame = dataclasses.replace(frame, height=170)
  families = run.families()
  for family in families[:MAX_FAMILIES]:
    lines = series_lib.metric(rows, f"reward/{family}", "training", "train")
    lines += series_lib.held_out(run, "families", family)
    if lines:
      figures.append(score_figure(family, "", lines, frame))
  if len(families) > MAX_FAMILIES:
    sentence = f"Without a chart of their own: {len(families) - MAX_FAMILIES}."
    figures.append(missing("Further families", sentence))
  return figures


def tool_mix(
  run: run_data.RunData, rows: Sequence[run_data.Record]
) -> markup.Html:
  """Shares of the tools the planner chose during training."""
  title, caption = "Tools in training", "Which tools the planner picked."
  stack = series_lib.parts(rows, "tool_mix/")
  if not stack:
    return missing(title, "This run recorded no tool_mix/.")
  names = [(one.name, one.color, "area") for one in stack]
  return _stack(
    title, caption, stack, names, run, unit="share of plans", percent=True
  )


def phases(
  run: run_data.RunData, rows: Sequence[run_data.Record]
) -> markup.Html:
  """Wall clock per phase: a column per iteration, totals in the legend."""
  title = "Wall clock by phase"
  stack = series_lib.parts(rows, "phase_s/", _PHASES)
  if not stack:
    return missing(title, "This run recorded no phase_s/.")
  # From the unthinned rows: the sum of means is not the sum.
  totals = series_lib.part_totals(run.metrics, "phase_s/")
  whole = sum(totals.values())
  named = {one.name for one in stack}
  rest = sum(value for name, value in totals.items() if name not in named)
  entries = []
  for one in stack:
    seconds = totals.get(one.name, rest)
    share = f" ({scales.percent(seconds / whole)})" if whole > 0 else ""
    text = f"{one.name} {scales.duration(seconds)}{share}"
    entries.append((text, one.color, "area"))
  iterations = scales.count(len(run.metrics), "iteration")
  caption = f"{scales.duration(whole)} in {iterations}."
  return _stack(
    title, caption, stack, entries, run, unit="seconds per iteration"
  )


def missing(title: str, sentence: str) -> markup.Html:
  """A card that says in words what is not there."""
  return figure(title, "", tag("p", sentence, class_="missing"))


def score_figure(
  title: str,
  caption: str,
  lines: Sequence[charts.Series],
  frame: charts.Frame,
  css: str = "",
) -> markup.Html:
  """Rewards or accuracies: from 0 to 100% if all of them are shares."""
  values = [v for one in lines for v in one.values()]
  share = all(0 <= value <= 1 for value in values)
  axis = scales.linear_axis([0.0, 1.0] if share else values)
  return line_figure(
    title,
    caption,
    lines,
    frame,
    unit="share answered right" if share else "reward; accuracy as a fraction",
    percent=share,
    y_axis=axis,
    css=css,
  )


def line_figure(
  title: str,
  caption: str,
  lines: Sequence[charts.Series],
  frame: charts.Frame,
  *,
  unit: str,
  percent: bool = False,
  log: bool = False,
  y_axis: scales.Axis | None = None,
  css: str = "",
) -> markup.Html:
  """Lines over iterations with legend, unit, gaps and a table of values."""
  values = [v for one in lines for v in one.values()]
  if log and min(values) > 1e-30 and max(values) > 30 * min(values):
    y_axis = scales.log_axis(values)
    unit += ", logarithmic"
  plot = charts.line_chart(
    lines,
    frame,
    label=_description(title, lines, percent),
    write_tick=scales.percent_tick if percent else scales.amount,
    y_axis=y_axis,
  )
  entries = [
    (one.name, one.color, "marker" if one.markers else "line")
    for one in lines
    if "faint" not in one.color  # its running mean stands for both
  ]
  return figure(
    title,
    caption,
    charts.legend(entries),
    tag("p", unit, class_="unit"),
    plot,
    _gaps(lines),
    _table(lines, frame, percent),
    css=css,
  )


def _stack(
  title: str,
  caption: str,
  stack: Sequence[charts.Series],
  entries: Sequence[tuple[str, str, str]],
  run: run_data.RunData,
  *,
  unit: str,
  percent: bool = False,
) -> markup.Html:
  frame = charts.Frame(x_axis=series_lib.iteration_axis(run), height=200)
  frame = charts.column_frame(stack, frame)
  plot = charts.stacked_columns(
    stack,
    frame,
    label=_description(title, stack, percent),
    write_tick=scales.percent_tick if percent else scales.amount,
  )
  return figure(
    title,
    caption,
    charts.legend(entries),
    tag("p", unit, class_="unit"),
    plot,
    _table(stack, frame, percent),
    css="most",
  )


def _table(
  lines: Sequence[charts.Series], frame: charts.Frame, percent: bool
) -> markup.Html:
  write = scales.percent if percent else scales.amount
  table = charts.value_table(lines, frame, write=write)
  return tag(
    "details",
    tag("summary", "Values"),
    tag("div", table, class_="scroll", tabindex="0"),
    class_="values",
  )


def _gaps(lines: Sequence[charts.Series]) -> markup.Html | None:
  gaps = sum(y is None for one in lines for _, y in one.points)
  if not gaps:
    return None
  return tag(
    "p",
    f"Not finite, left as gaps: {scales.count(gaps, 'value')}.",
    class_="note",
  )


def _description(
  title: str, lines: Sequence[charts.Series], percent: bool
) -> str:
  write = scales.percent if percent else scales.amount
  spans = [
    f"{one.name} from {write(values[0])} to {write(values[-1])}"
    for one in lines
    if (values := one.values())
  ]
  return f"{title} over iterations: {'; '.join(spans)}."
