"""The top of the page: what changed, in one number, one sentence, one chart.

Also the before/after rows (ring to dot) that other sections reuse.
"""

from collections.abc import Iterable, Mapping, Sequence

from agentflow_jax.evaluation.report import charts, markup, run_data, scales
from agentflow_jax.evaluation.report import series as series_lib

tag = markup.tag

# (label, before, after); None where one side is not known.
Row = tuple[str, float | None, float | None]

_MAX_ROWS = 12


def headline(run: run_data.RunData, *, link_config: bool) -> markup.Html:
  """Run name, accuracy before and after, the run in figures, its config."""
  first, last = run.evaluation("before"), final_evaluation(run)
  scored = [e for e in (first, last) if e and _accuracy(e) is not None]
  if scored:
    body = tag(
      "div",
      tag("div", _score(first, last), _sentence(run, first, last)),
      _families(first, last),
      class_="headline",
    )
  else:
    sentence = "No held-out evaluation was recorded, so there is no score."
    body = tag("p", sentence, class_="missing")
  return tag(
    "header",
    tag("p", "Flow-GRPO training run", class_="eyebrow"),
    tag("h1", run.name),
    body,
    _facts(run, last or first),
    _config(run, link_config),
    class_="card hero",
  )


def final_evaluation(run: run_data.RunData) -> run_data.Record | None:
  """The latest evaluation; "during" if training went on after the end."""
  return run.evaluation("during", "after")


def before_after_legend() -> markup.Html:
  """What the ring and the dot of `change_rows` stand for."""
  return charts.legend([("before", "held", "ring"), ("after", "held", "dot")])


def change_rows(
  rows: Sequence[Row],
  bounds: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
) -> markup.Html:
  """Shares before and after, a row each, on a common axis from 0 to 100%."""
  lines = []
  for label, before, after in rows[:_MAX_ROWS]:
    interval = (bounds or {}).get(label, ())
    value = f"{_percent(before)} → {_percent(after)}"
    lines.append(
      tag(
        "li",
        tag("span", label or "ungrouped", class_="label"),
        charts.dumbbell(before, after, interval),
        tag("span", value, class_="value"),
      )
    )
  if len(rows) > _MAX_ROWS:
    sentence = f"Not shown: {len(rows) - _MAX_ROWS} more."
    lines.append(tag("li", sentence, class_="note"))
  return tag("ul", lines, class_="changes")


def _accuracy(evaluation: run_data.Record | None) -> float | None:
  return run_data.number((evaluation or {}).get("accuracy"))


def _percent(value: float | None) -> str:
  return "–" if value is None else scales.percent(value)


def _score(
  first: run_data.Record | None,
  last: run_data.Record | None,
) -> markup.Html:
  done = last is not None and last.get("when") == "after"
  when = "after training" if done else "latest, in training"
  sides = [_big(first, "before training", "ring"), _big(last, when, "dot")]
  arrow = tag("span", "→", class_="arrow") if all(sides) else None
  return tag("div", sides[0], arrow, sides[1], class_="score")


def _big(
  evaluation: run_data.Record | None, when: str, css: str
) -> markup.Html | None:
  value = _accuracy(evaluation)
  if evaluation is None or value is None:
    return None
  interval = series_lib.interval_of(evaluation)
  bounds = None
  if interval:
    low, high = map(scales.percent, interval)
    bounds = tag("span", f"95% interval {low} to {high}", class_="bounds")
  return tag(
    "div",
    tag("span", scales.percent(value), class_=f"big {css}"),
    tag("span", when),
    bounds,
  )


def _sentence(
  run: run_data.RunData,
  first: run_data.Record | None,
  last: run_data.Record | None,
) -> markup.Html:
  before, after = _accuracy(first), _accuracy(last)
  if before is None or after is None or first is None or last is None:
    side = "before" if before is None else "after"
    text = f"No evaluation {side} training was recorded."
    return tag("p", text, class_="sentence")
  points = 100 * (after - before)
  if abs(points) < 0.05:
    text = "Held-out accuracy did not change"
  else:
    verb = "rose" if points > 0 else "fell"
    text = f"Held-out accuracy {verb} by {abs(points):.1f} points"
  if run.metrics and last.get("when") == "after":
    text += f" in {scales.count(len(run.metrics), 'iteration')}"
    wall = series_lib.wall_time_s(run.metrics)
    text += f" and {scales.duration(wall)}" if wall else ""
  text += "."
  ends = series_lib.interval_of(first), series_lib.interval_of(last)
  if (
    ends[0]
    and ends[1]
    and ends[0][1] >= ends[1][0]
    and ends[1][1] >= ends[0][0]
  ):
    text += " The two 95% intervals overlap."
  return tag("p", text, class_="sentence")


def _families(
  first: run_data.Record | None,
  last: run_data.Record | None,
) -> markup.Html:
  first, last = first or {}, last or {}
  overall = "all questions"
  rows: list[Row] = [(overall, _accuracy(first), _accuracy(last))]
  sides = [run_data.mapping(e.get("families")) for e in (first, last)]
  rows += paired(sides[0], sides[1])
  bounds = {
    overall: (series_lib.interval_of(first), series_lib.interval_of(last))
  }
  return tag(
    "div",
    before_after_legend(),
    change_rows(rows, bounds),
    class_="families",
  )


def paired(before: run_data.Record, after: run_data.Record) -> list[Row]:
  """Rows of two name -> share records; a name one lacks is None there."""
  names = dict.fromkeys([*before, *after])
  return [
    (name, run_data.number(before.get(name)), run_data.number(after.get(name)))
    for name in names
  ]


def facts_list(facts: Iterable[tuple[str, str, str]]) -> markup.Html:
  """A strip of (label, value, remark); an empty value is "not recorded"."""
  return tag(
    "dl",
    [
      tag(
        "div",
        tag("dt", label),
        tag("dd", text or "not recorded"),
        tag("dd", remark, class_="remark") if remark else None,
      )
      for label, text, remark in facts
    ],
    class_="facts",
  )


def _facts(
  run: run_data.RunData, evaluation: run_data.Record | None
) -> markup.Html:
  config = run_data.mapping(run.config)
  rollout = run_data.mapping(config.get("rollout"))
  tasks, size = map(
    run_data.number, (rollout.get("tasks"), rollout.get("group_size"))
  )
  attempts = ""
  if tasks and size:
    attempts = f"{tasks:,.0f} questions × {size:,.0f} attempts each"
  steps = [run_data.number(row.get("step")) for row in run.metrics]
  known = [step for step in steps if step is not None]
  wall = series_lib.wall_time_s(run.metrics)
  model = run_data.mapping(config.get("model"))
  kind = "checkpoint" if model.get("checkpoint") else "preset"
  start = run_data.string(model.get(kind))
  return facts_list(
    [
      ("Held-out questions", *_question_counts(run, evaluation)),
      ("Iterations", f"{len(run.metrics):,}" if run.metrics else "", attempts),
      ("Optimizer steps", scales.amount(max(known)) if known else "", ""),
      ("Wall time", scales.duration(wall) if wall else "", ""),
      ("Planner", start, kind if start else ""),
    ]
  )


def _question_counts(
  run: run_data.RunData, evaluation: run_data.Record | None
) -> tuple[str, str]:
  """How many questions the evaluation asked, with a remark on them.

  An evaluation counts what infrastructure lost as wrong; the remark says how
  much that was. The families are those of the recorded trajectories.
  """
  evaluation = evaluation or {}
  families: dict[str, set[str]] = {}
  for record in run.after or run.before:
    task = run_data.mapping(record.get("task"))
    name = run_data.string(task.get("id") or task.get("question"))
    family = run_data.string(task.get("family"))
    families.setdefault(family, set()).add(name)
  total = run_data.number(evaluation.get("questions"))
  if total is None:
    total = float(sum(map(len, families.values())))
  remarks = []
  if len(families) > 1:
    remarks = [f"{len(ids):,} {name}" for name, ids in sorted(families.items())]
  lost = [run_data.number(evaluation.get(n)) for n in ("masked", "missing")]
  if count := sum(filter(None, lost)):
    remarks.append(f"{count:,.0f} lost, counted as wrong")
  return scales.amount(total) if total else "", ", ".join(remarks)


def _config(run: run_data.RunData, link: bool) -> markup.Html:
  if run.config is None:
    sentence = "No readable config.json was found beside the metrics."
    return tag("p", sentence, class_="missing")
  return tag(
    "details",
    tag("summary", "Configuration"),
    tag("p", tag("a", "config.json", href="config.json")) if link else None,
    tag("pre", run_data.literal(run.config, indent=2)),
    class_="config",
  )
