"""The page from top to bottom: RunData -> one self-contained HTML document.

headline -> learning -> behaviour -> optimisation -> cost -> questions ->
recorded trajectories, where asked for -> every metric.
"""

import collections
from collections.abc import Sequence

from agentflow_jax.evaluation.report import (
  document,
  figures,
  headline,
  markup,
  panels,
  run_data,
  scales,
  trajectories,
)
from agentflow_jax.evaluation.report import pairs as pairs_lib
from agentflow_jax.evaluation.report import series as series_lib

tag = markup.tag

_SECTIONS = (
  ("learning", "Learning"),
  ("behaviour", "Behaviour"),
  ("optimisation", "Optimisation"),
  ("cost", "Cost"),
  ("questions", "Questions"),
  ("metrics", "Every metric"),
)


def render(
  run: run_data.RunData,
  *,
  link_config: bool = True,
  viewer: markup.Html | None = None,
) -> str:
  """The whole document; the same RunData gives the same text.

  Args:
    run: what to show.
    link_config: the page will lie beside config.json, so it may point there.
    viewer: the recorded trajectories, from viewer.py; they get a section.
  """
  rows = series_lib.condense(run.metrics)
  sections = [
    _section("learning", figures.learning(run, rows)),
    _section("behaviour", _behaviour(run, rows)),
    _section("optimisation", _panels(panels.OPTIMISATION, run, rows)),
    _section(
      "cost", [figures.phases(run, rows), *_panels(panels.COST, run, rows)]
    ),
    _section("questions", _questions(run), css="plain"),
    _section("metrics", [_metrics_table(run)], css="plain"),
  ]
  links = [*_SECTIONS]
  if viewer is not None:
    sections.insert(-1, viewer)
    links.insert(-1, document.VIEWER_SECTION)
  return document.document(
    f"{run.name}: Flow-GRPO report",
    headline.headline(run, link_config=link_config),
    tag("nav", [tag("a", name, href=f"#{id_}") for id_, name in links]),
    tag("main", sections),
    _footer(run),
    styles=document.VIEWER_STYLES if viewer else document.STYLES,
    scripts=document.VIEWER_SCRIPTS if viewer else document.SCRIPTS,
  )


def _section(
  name: str, content: Sequence[markup.Html], css: str = "grid"
) -> markup.Html:
  title = dict(_SECTIONS)[name]
  return tag(
    "section",
    tag("h2", title, id=f"{name}-title"),
    tag("div", content, class_=css),
    id=name,
    aria_labelledby=f"{name}-title",
  )


def _panels(
  specs: Sequence[panels.Panel],
  run: run_data.RunData,
  rows: Sequence[run_data.Record],
) -> list[markup.Html]:
  return [figures.panel(spec, run, rows) for spec in specs]


def _behaviour(
  run: run_data.RunData, rows: Sequence[run_data.Record]
) -> list[markup.Html]:
  first = run.evaluation("before") or {}
  last = headline.final_evaluation(run) or {}
  cards = [_numbers(first, last)]
  for title, caption, field in (
    (
      "Tool mix",
      "Which tools the planner picks on held-out questions.",
      "tool_mix",
    ),
    ("Why episodes end", "Stop reasons on held-out questions.", "stop_reasons"),
  ):
    before, after = (run_data.mapping(e.get(field)) for e in (first, last))
    names = [*before, *after]
    changes = headline.paired(_shares(before, names), _shares(after, names))
    if not changes:
      sentence = f"No evaluation recorded its {field}."
      cards.append(figures.missing(title, sentence))
      continue
    legend = headline.before_after_legend()
    shown = headline.change_rows(changes)
    cards.append(figures.figure(title, caption, legend, shown, css="half"))
  cards += _panels(panels.BEHAVIOUR, run, rows)
  cards.append(figures.tool_mix(run, rows))
  return cards


def _numbers(first: run_data.Record, last: run_data.Record) -> markup.Html:
  """The evaluation's scalars before and after."""
  facts = []
  for label, field, write in (
    ("Turns per question", "mean_turns", scales.amount),
    ("Completion tokens", "completion_tokens", scales.amount),
    ("Tool errors", "tool_error_rate", scales.percent),
    ("Unreadable plans", "parse_failure_rate", scales.percent),
    ("Unreadable verdicts", "verdict_failure_rate", scales.percent),
  ):
    before, after = (run_data.number(e.get(field)) for e in (first, last))
    if before is None or after is None:
      only = before if after is None else after
      facts.append((label, "" if only is None else write(only), ""))
    else:
      text = f"{write(before)} → {write(after)}"
      facts.append((label, text, scales.change(before, after, write)))
  return figures.figure(
    "Held-out, before → after", "", headline.facts_list(facts), css="wide"
  )


def _shares(parts: run_data.Record, names: Sequence[str]) -> dict[str, float]:
  """Counts or shares of `names` as shares of their sum.

  What a record does not count did not happen: 0. A record that counts nothing
  says nothing: no shares.
  """
  known = {n: max(run_data.number(parts.get(n)) or 0.0, 0.0) for n in names}
  total = sum(known.values())
  return {name: v / total for name, v in known.items()} if total > 0 else {}


def _questions(run: run_data.RunData) -> list[markup.Html]:
  if not run.before and not run.after:
    sentence = (
      "No evaluation trajectories were recorded (rollouts/evaluation/"
      "before.jsonl and after.jsonl), so there is nothing to show side by side."
    )
    return [tag("p", sentence, class_="missing card")]
  pairs = pairs_lib.match(run)
  chosen = pairs_lib.choose(pairs)
  return [
    _transitions(run, pairs, len(chosen)),
    *(
      trajectories.pair_card(pair, is_open=index == 0)
      for index, pair in enumerate(chosen)
    ),
  ]


def _transitions(
  run: run_data.RunData, pairs: Sequence[pairs_lib.Pair], shown: int
) -> markup.Html:
  absent = [
    name
    for name, records in (
      (run_data.BEFORE, run.before),
      (run_data.AFTER, run.after),
    )
    if not records
  ]
  if absent:
    text = f"{absent[0]} holds no trajectories: only one side can be shown."
    return tag("p", text, class_="missing card")
  counts = collections.Counter(pair.outcomes for pair in pairs)
  both = {
    "wrong → right": counts.pop((pairs_lib.WRONG, pairs_lib.RIGHT), 0),
    "right → right": counts.pop((pairs_lib.RIGHT, pairs_lib.RIGHT), 0),
    "wrong → wrong": counts.pop((pairs_lib.WRONG, pairs_lib.WRONG), 0),
    "right → wrong": counts.pop((pairs_lib.RIGHT, pairs_lib.WRONG), 0),
    "not scored twice": counts.total(),
  }
  facts = [
    (name, f"{count:,}", "")
    for name, count in both.items()
    if count or name != "not scored twice"
  ]
  text = (
    f"{scales.count(len(pairs), 'recorded attempt')}, before and after "
    f"training. Shown below: {shown} of them, families in turn, questions that "
    "went from wrong to right first."
  )
  return tag("div", tag("p", text), headline.facts_list(facts), class_="card")


def _metrics_table(run: run_data.RunData) -> markup.Html:
  names = sorted({name for row in run.metrics for name in row} - {"iteration"})
  if not names:
    sentence = "metrics.jsonl is missing or empty."
    return tag("p", sentence, class_="missing card")
  columns = ("metric", "first", "last", "smallest", "largest", "mean", "rows")
  body = []
  for name in names:
    values = [run_data.number(row[name]) for row in run.metrics if name in row]
    known = [value for value in values if value is not None]
    if not known:
      cells = ["not finite"] * 5
    else:
      mean = sum(known) / len(known)
      picked = (known[0], known[-1], min(known), max(known), mean)
      cells = [scales.amount(value) for value in picked]
    cells.append(f"{len(known):,}")
    body.append(
      tag("tr", tag("th", name, scope="row"), [tag("td", c) for c in cells])
    )
  header = tag("tr", [tag("th", name, scope="col") for name in columns])
  table = tag("table", tag("thead", header), tag("tbody", body))
  return tag(
    "details",
    tag(
      "summary",
      f"{scales.count(len(names), 'metric')} over "
      f"{scales.count(len(run.metrics), 'iteration')}",
    ),
    tag("div", table, class_="scroll", tabindex="0"),
    class_="card values",
  )


def _footer(run: run_data.RunData) -> markup.Html:
  notes = list(run.notes)
  if run.missing:
    notes.append(f"Not found: {', '.join(sorted(run.missing))}.")
  size = series_lib.bucket_size(len(run.metrics))
  if size > 1:
    notes.append(
      f"Each charted point is the mean of {size} iterations (the largest value "
      "for names ending in _max)."
    )
  notes.append(
    "Orange diamonds are held-out evaluations, blue lines training rollouts; "
    "vertical bars are 95% intervals."
  )
  return tag("footer", [tag("p", note) for note in notes])
