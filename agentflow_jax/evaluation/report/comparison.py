"""Several runs on one page: final numbers, settings that differ, all curves.

Each run has a colour; a chart holds one metric of every run. What no run
recorded has no chart: the page of a single run says what is missing.
"""

import dataclasses
from collections.abc import Callable, Sequence

from agentflow_jax.evaluation.report import (
  charts,
  document,
  figures,
  headline,
  markup,
  panels,
  run_data,
  scales,
)
from agentflow_jax.evaluation.report import series as series_lib

tag = markup.tag

# Colours there are.
MAX_RUNS = 6
_NONE = "–"
# The last values of a noisy metric are averaged over this share of the rows.
_LAST_SHARE = 0.1
_MAX_SETTING = 200
# Differ in any two runs.
_NO_SETTINGS = frozenset({"run.run_dir"})
_STACKS = (
  ("Phase", "phase_s/", "seconds per iteration", False),
  ("Tool", "tool_mix/", "share of plans", True),
)

Writer = Callable[[float], str]


def render(
  runs: Sequence[run_data.RunData],
  labels: Sequence[str],
  viewer: markup.Html | None,
) -> str:
  """The whole document for at most MAX_RUNS runs, named by `labels`."""
  named = list(zip(labels, runs, strict=True))
  links = {"numbers": "Numbers", "settings": "Settings", "curves": "Curves"}
  sections = [
    _section("numbers", links["numbers"], _numbers(named)),
    _section("settings", links["settings"], _settings(named)),
    _section("curves", links["curves"], *_curves(named), css="grid"),
  ]
  if viewer is not None:
    links |= [document.VIEWER_SECTION]
    sections.append(viewer)
  return document.document(
    f"{len(runs)} runs compared",
    tag(
      "header",
      tag("p", "Flow-GRPO training runs", class_="eyebrow"),
      tag("h1", " / ".join(labels)),
      _legend(labels),
      class_="card hero",
    ),
    tag("nav", [tag("a", name, href=f"#{id_}") for id_, name in links.items()]),
    tag("main", sections),
    _footer(named),
    styles=document.VIEWER_STYLES,
    scripts=document.VIEWER_SCRIPTS,
  )


_Named = Sequence[tuple[str, run_data.RunData]]


def _legend(labels: Sequence[str]) -> markup.Html:
  return charts.legend(
    [(label, f"c{index}", "line") for index, label in enumerate(labels, 1)]
  )


def _section(
  name: str, title: str, *content: markup.Child, css: str = "plain"
) -> markup.Html:
  return tag(
    "section",
    tag("h2", title, id=f"{name}-title"),
    tag("div", *content, class_=css),
    id=name,
    aria_labelledby=f"{name}-title",
  )


def _table(
  columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> markup.Html:
  head = tag("tr", [tag("th", name, scope="col") for name in columns])
  body = [
    tag("tr", tag("th", name, scope="row"), [tag("td", c) for c in cells])
    for name, cells in rows
  ]
  table = tag("table", tag("thead", head), tag("tbody", body), class_="compare")
  return tag("div", table, class_="card scroll-x", tabindex="0")


def _numbers(named: _Named) -> markup.Html:
  """What each run reached: evaluations, then the end of training."""
  rows: list[tuple[str, Sequence[str]]] = [
    (
      "Accuracy before",
      [_accuracy(run.evaluation("before")) for _, run in named],
    ),
    (
      "Accuracy, last evaluation",
      [_accuracy(headline.final_evaluation(run)) for _, run in named],
    ),
  ]
  families = dict.fromkeys(f for _, run in named for f in run.families())
  rows += [
    (f"· {family}, last evaluation", [_family(run, family) for _, run in named])
    for family in list(families)[: figures.MAX_FAMILIES]
  ]
  rows += [
    ("Iterations", [f"{len(run.metrics):,}" for _, run in named]),
    ("Optimizer steps", [_largest(run, "step") for _, run in named]),
    ("Wall time", [_wall_time(run) for _, run in named]),
  ]
  for title, name, write in _ends():
    rows.append((title, [_end(run, name, write) for _, run in named]))
  shown = [row for row in rows if any(cell != _NONE for cell in row[1])]
  return _table(["", *(label for label, _ in named)], shown)


def _ends() -> list[tuple[str, str, Writer]]:
  """(title, metric, writer) of what training is summed up by at its end."""
  found: list[tuple[str, str, Writer]] = [
    ("Training reward, end", "reward", scales.percent)
  ]
  for spec in (*panels.BEHAVIOUR, *panels.OPTIMISATION, *panels.COST):
    for name, legend, _ in spec.metrics:
      title = f"{_title(spec, legend)}, end"
      found.append(
        (title, name, scales.percent if spec.percent else scales.amount)
      )
  return found


def _accuracy(evaluation: run_data.Record | None) -> str:
  value = run_data.number((evaluation or {}).get("accuracy"))
  if evaluation is None or value is None:
    return _NONE
  interval = series_lib.interval_of(evaluation)
  if interval is None:
    return scales.percent(value)
  low, high = map(scales.percent, interval)
  return f"{scales.percent(value)} ({low} to {high})"


def _family(run: run_data.RunData, family: str) -> str:
  last = headline.final_evaluation(run) or {}
  value = run_data.number(run_data.mapping(last.get("families")).get(family))
  return _NONE if value is None else scales.percent(value)


def _largest(run: run_data.RunData, name: str) -> str:
  values = [run_data.number(row.get(name)) for row in run.metrics]
  known = [value for value in values if value is not None]
  return scales.amount(max(known)) if known else _NONE


def _wall_time(run: run_data.RunData) -> str:
  seconds = series_lib.wall_time_s(run.metrics)
  return scales.duration(seconds) if seconds else _NONE


def _end(run: run_data.RunData, name: str, write: Writer) -> str:
  """The mean of the last tenth of the rows that have the metric."""
  values = [run_data.number(row[name]) for row in run.metrics if name in row]
  known = [value for value in values if value is not None]
  if not known:
    return _NONE
  last = known[-max(1, round(_LAST_SHARE * len(known))) :]
  return write(sum(last) / len(last))


def _settings(named: _Named) -> markup.Html:
  """The config keys whose values differ."""
  without = [label for label, run in named if run.config is None]
  if without:
    sentence = f"No readable config.json: {', '.join(without)}."
    return tag("p", sentence, class_="missing card")
  flat = [dict(_flatten(run_data.mapping(run.config))) for _, run in named]
  keys = sorted(set().union(*flat) - _NO_SETTINGS)
  rows = [
    (key, [one.get(key, _NONE)[:_MAX_SETTING] for one in flat])
    for key in keys
    if len({one.get(key) for one in flat}) > 1
  ]
  if not rows:
    return tag("p", "All settings are the same.", class_="missing card")
  return _table(["", *(label for label, _ in named)], rows)


def _flatten(
  config: run_data.Record, prefix: str = ""
) -> list[tuple[str, str]]:
  """Dotted keys and their values as JSON."""
  found = []
  for key, value in config.items():
    if isinstance(value, dict) and value and prefix.count(".") < 8:
      found += _flatten(value, f"{prefix}{key}.")
    else:
      found.append((f"{prefix}{key}", run_data.literal(value)))
  return found


_Rows = Sequence[Sequence[run_data.Record]]


def _curves(named: _Named) -> list[markup.Html]:
  """A chart per metric that some run recorded, what was learnt first."""
  frame = charts.Frame(
    x_axis=series_lib.iteration_axis(*(run for _, run in named))
  )
  rows = [series_lib.condense(run.metrics) for _, run in named]
  found = _scores(named, rows, frame)
  for spec in (*panels.BEHAVIOUR, *panels.OPTIMISATION, *panels.COST):
    for name, legend, _ in spec.metrics:
      if lines := _metric(named, rows, name):
        found.append(
          figures.line_figure(
            _title(spec, legend),
            spec.caption,
            lines,
            frame,
            unit=spec.unit,
            percent=spec.percent,
            log=spec.log,
          )
        )
  for word, prefix, unit, percent in _STACKS:
    for name in _largest_parts(named, prefix):
      lines = _metric(named, rows, prefix + name)
      title = f"{word}: {name}"
      found.append(
        figures.line_figure(title, "", lines, frame, unit=unit, percent=percent)
      )
  return found


def _scores(
  named: _Named, rows: _Rows, frame: charts.Frame
) -> list[markup.Html]:
  """Accuracy and reward: of all questions large, then of each family."""
  wide = dataclasses.replace(frame, height=250)
  made = [
    ("Held-out accuracy", _held_out(named, "accuracy"), wide, "half"),
    ("Training reward", _metric(named, rows, "reward"), wide, "half"),
  ]
  families = dict.fromkeys(f for _, run in named for f in run.families())
  for family in list(families)[: figures.MAX_FAMILIES]:
    held_out = _held_out(named, "families", family)
    training = _metric(named, rows, f"reward/{family}")
    made.append((f"Held-out: {family}", held_out, frame, ""))
    made.append((f"Training: {family}", training, frame, ""))
  return [
    figures.score_figure(title, "", lines, where, css=css)
    for title, lines, where, css in made
    if lines
  ]


def _largest_parts(named: _Named, prefix: str) -> list[str]:
  """The names under a prefix, by their sum over all runs."""
  totals: dict[str, float] = {}
  for _, run in named:
    for name, value in series_lib.part_totals(run.metrics, prefix).items():
      totals[name] = totals.get(name, 0.0) + value
  names = sorted(totals, key=lambda name: (-totals[name], name))
  return names[: series_lib.MAX_PARTS]


def _title(spec: panels.Panel, legend: str) -> str:
  return spec.title if len(spec.metrics) == 1 else f"{spec.title}: {legend}"


def _metric(named: _Named, rows: _Rows, name: str) -> list[charts.Series]:
  # All or none: a mean beside raw lines would look like the calmer run.
  enough = series_lib.SMOOTHED_FROM
  smooth = all(sum(name in row for row in own) >= enough for own in rows)
  return [
    line
    for index, (label, _) in enumerate(named)
    for line in series_lib.metric(
      rows[index], name, label, f"c{index + 1}", smooth=smooth
    )
  ]


def _held_out(
  named: _Named, field: str, family: str = ""
) -> list[charts.Series]:
  return [
    dataclasses.replace(line, name=label, color=f"c{index}")
    for index, (label, run) in enumerate(named, 1)
    for line in series_lib.held_out(run, field, family)
  ]


def _footer(named: _Named) -> markup.Html:
  notes = [f"{label}: {note}" for label, run in named for note in run.notes]
  notes += [
    f"{label}: not found: {', '.join(sorted(run.missing))}."
    for label, run in named
    if run.missing
  ]
  notes.append(
    "Numbers marked “end” are the mean of the last tenth of the iterations; "
    "diamonds are held-out evaluations, their bars 95% intervals."
  )
  return tag("footer", [tag("p", note) for note in notes])
