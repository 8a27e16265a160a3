"""Benchmark results as tables: one description, Markdown and HTML from it.

Flow: results by benchmark (and a second set to compare with) -> `Table`s ->
`markdown(..)` or `html(..)`. The page is self-contained: no script, no
request. Quoted numbers of the paper stand in a table of their own that says
so.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentflow_jax.core import errors
from agentflow_jax.evaluation import paper_results, statistics
from agentflow_jax.evaluation.report import markup
from agentflow_jax.rollout import leak_audit

Results = Mapping[str, Mapping[str, Any]]

_STYLE = (
  "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;"
  "padding:0 1rem;color:#222;background:#fff}table{border-collapse:collapse;"
  "margin:.5rem 0 1.5rem}th,td{padding:.25rem .6rem;border-bottom:1px solid "
  "#ccc;text-align:right}th:first-child,td:first-child{text-align:left}"
  "caption,p{text-align:left}.quoted{opacity:.75}@media "
  "(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{"
  "border-color:#444}}"
)

# Key of a result's "judge" -> column.
_JUDGE_COLUMNS = {
  "asked": "asked",
  "agreed_right": "rules yes, judge yes",
  "agreed_wrong": "rules no, judge no",
  "doubted": "rules yes, judge no",
  "overruled": "rules no, judge yes",
  "unreadable": "unreadable",
  "failed": "failed",
  "refused": "not shown to it",
  "not_recorded": "not recorded",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
  """A titled table of texts; `note` is printed below it."""

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ""
  quoted: bool = False


def tables(results: Results) -> list[Table]:
  """What is said about a set of results."""
  counts = [
    _counts("Stop reasons", "stop_reasons", results),
    _counts("Tool mix (share of readable decisions)", "tool_mix", results),
    _counts("Tool errors", "tool_errors", results),
  ]
  return [
    _accuracy(results),
    _behaviour(results),
    *_judge(results),
    *(table for table in counts if len(table.header) > 1),
    _flags(results),
    _quoted(results),
  ]


def comparison(one: Results, other: Results) -> Table:
  """How `other` differs from `one`, on the benchmarks both have.

  Raises:
    UserError: they share no benchmark, or not its questions.
  """
  rows = []
  for name in one:
    if name not in other:
      continue
    ids = list(one[name]["right"])
    if set(ids) != set(other[name]["right"]):
      raise errors.UserError(
        f"{name}: the two evaluations asked different questions"
      )
    found = statistics.compare(
      np.array([one[name]["right"][i] for i in ids], float),
      np.array([other[name]["right"][i] for i in ids], float),
    )
    low, high = found["interval"]  # pyright: ignore[reportGeneralTypeIssues]
    rows.append(
      [
        name,
        str(len(ids)),
        _percent(one[name]["accuracy"]),
        _percent(other[name]["accuracy"]),
        f"{100 * found['difference']:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        f"{found['p']:.3f}",
      ]
    )
  if not rows:
    raise errors.UserError("the two evaluations share no benchmark")
  return Table(
    title="Comparison (B - A)",
    header=["benchmark", "questions", "A", "B", "B - A", "95 %", "p"],
    rows=rows,
    note=(
      "Paired bootstrap over questions, then trials; p is two-sided. Points "
      "are per cent."
    ),
  )


def markdown(title: str, shown: Sequence[Table]) -> str:
  """A Markdown document."""
  lines = [f"# {title}", ""]
  for table in shown:
    lines += [f"## {table.title}", ""]
    lines.append(f"| {' | '.join(map(_cell, table.header))} |")
    lines.append("|---" * len(table.header) + "|")
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in table.rows]
    lines.append("")
    if table.note:
      lines += [table.note, ""]
  return "\n".join(lines)


def html(title: str, shown: Sequence[Table]) -> str:
  """A self-contained HTML page."""
  tag = markup.tag
  body = [tag("h1", title)]
  for table in shown:
    body += [
      tag("h2", table.title),
      tag(
        "table",
        tag("tr", [tag("th", text) for text in table.header]),
        [tag("tr", [tag("td", text) for text in row]) for row in table.rows],
        class_="quoted" if table.quoted else None,
      ),
    ]
    if table.note:
      body.append(tag("p", table.note))
  head = tag(
    "head",
    tag("meta", charset="utf-8"),
    tag("meta", name="viewport", content="width=device-width"),
    tag("title", title),
    tag("style", markup.Html(_STYLE)),
  )
  page = tag("html", head, tag("body", body), lang="en")
  return f"<!DOCTYPE html>\n{page}\n"


def _accuracy(results: Results) -> Table:
  trials = max((found["trials"] for found in results.values()), default=1)
  rows = []
  for name, found in results.items():
    low, high = found["interval"]
    k = str(found["trials"])
    rows.append(
      [
        name,
        str(found["questions"]),
        str(found["trials"]),
        _percent(found["accuracy"]),
        f"{100 * low:.1f} to {100 * high:.1f}",
        _percent(found["pass_at_k"][k]),
        _percent(found["majority_at_k"][k]),
        _percent(found.get("token_f1")),
        _percent(found.get("cover_em")),
        str(found["missing"]),
        str(found["masked"]),
      ]
    )
  note = (
    "Per cent of all questions and trials: missing and lost ones are wrong. "
    "The interval is a bootstrap over questions and trials."
  )
  for name, found in results.items():
    # Results from before this was counted have none.
    if left_out := found.get("left_out", 0):
      note += (
        f" {name}: questions that need a file and are left out: {left_out}; "
        f"the denominator is {found['questions']}."
      )
  return Table(
    title="Accuracy",
    header=[
      *("benchmark", "questions", "trials", "accuracy", "95 %"),
      *(f"pass@{trials}", f"maj@{trials}", "F1", "cover-EM"),
      *("missing", "lost"),
    ],
    rows=rows,
    note=note,
  )


def _behaviour(results: Results) -> Table:
  rows = []
  estimated = False
  for name, found in results.items():
    by_role = [v for v in found["tokens"].values() if isinstance(v, dict)]
    estimated |= found["tokens"]["estimated"]
    rows.append(
      [
        name,
        f"{found['mean_turns']:.2f}",
        _percent(found["tool_error_rate"]),
        _percent(found["parse_failure_rate"]),
        # Results from before this was counted have none.
        _percent(found.get("verdict_failure_rate")),
        f"{sum(v['prompt'] for v in by_role):.0f}",
        f"{sum(v['completion'] for v in by_role):.0f}",
        f"{found['timing']['mean_s']:.1f}" if "timing" in found else "-",
        f"{found['cost_per_question']:.5f}",
      ]
    )
  note = "Means per episode; cost per question, all trials."
  if estimated:
    note += " Tokens of APIs are estimated at four characters each."
  return Table(
    title="Behaviour",
    header=[
      *("benchmark", "turns", "tool errors %", "unreadable plans %"),
      *("unreadable verdicts %", "prompt tokens"),
      *("completion tokens", "seconds", "cost"),
    ],
    rows=rows,
    note=note,
  )


def _judge(results: Results) -> list[Table]:
  """One table, or none where no benchmark had a judge."""
  if not any("judge" in found for found in results.values()):
    return []
  rows = []
  for name, found in results.items():
    # None: nobody kept what the judge said.
    judge = found.get("judge") or {}
    shown = [str(judge.get(key, "-")) for key in _JUDGE_COLUMNS]
    rows.append([name, *shown, _percent(judge.get("agreement"))])
  note = (
    "The rules decide; a judge is asked about what they call wrong, and about "
    "a fixed share of what they call right, there without effect. Agreement "
    "is per cent of the readable judgements."
  )
  return [
    Table(
      title="Judge against rules",
      header=["benchmark", *_JUDGE_COLUMNS.values(), "agreement %"],
      rows=rows,
      note=note,
    )
  ]


def _counts(title: str, key: str, results: Results) -> Table:
  names = sorted({name for found in results.values() for name in found[key]})
  rows = [
    [name, *(_number(found[key].get(column, 0)) for column in names)]
    for name, found in results.items()
  ]
  return Table(title=title, header=["benchmark", *names], rows=rows)


def _flags(results: Results) -> Table:
  rows = []
  for name, found in results.items():
    # Results from before flags were counted have none.
    flags = found.get("flags", {})
    shown = [flags.get(flag, "-") for flag in leak_audit.FLAGS]
    came = found["trajectories"] - found["missing"]
    rows.append([name, str(came), *map(str, shown)])
  meanings = (f"{flag}: {what}" for flag, what in leak_audit.FLAGS.items())
  return Table(
    title="Leak audit",
    header=["benchmark", "episodes", *leak_audit.FLAGS],
    rows=rows,
    note=(
      "Episodes that a person should look at before the accuracy is "
      f"believed. {'; '.join(meanings)}."
    ),
  )


def _quoted(results: Results) -> Table:
  names = list(results)
  rows = [
    ["ours (measured)", *(_percent(results[n]["accuracy"]) for n in names)]
  ]
  for system, values in paper_results.QUOTED.items():
    rows.append(
      [
        f"{system} (quoted)",
        *(f"{values[n]:.1f}" if n in values else "-" for n in names),
      ]
    )
  return Table(
    title="Beside the paper's numbers (quoted)",
    header=["system", *names],
    rows=rows,
    note=paper_results.NOTE,
    quoted=True,
  )


def _percent(value: float | None) -> str:
  return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float) -> str:
  return str(value) if isinstance(value, int) else f"{value:.3f}"


def _cell(text: str) -> str:
  """Tool names come from outside: no pipe and no line end gets through."""
  return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
