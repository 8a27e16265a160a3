"""Two trajectories of one question side by side, turn by turn.

Each turn reads plan, call, result, verdict. Everything shown was written by a
model or a tool: it enters the page through `markup.tag`, as text, and long
texts are cut with the number of characters left out.
"""

from agentflow_jax.evaluation.report import markup, run_data, scales
from agentflow_jax.evaluation.report import pairs as pairs_lib

tag = markup.tag

_LONG, _SHORT = 1200, 300
_MAX_TURNS, _MAX_CALLS = 20, 8

_SIGNS = {
  pairs_lib.RIGHT: "✓ right",
  pairs_lib.WRONG: "✗ wrong",
  pairs_lib.UNSCORED: "– not scored",
  pairs_lib.ABSENT: "– not recorded",
}


def pair_card(pair: pairs_lib.Pair, *, is_open: bool) -> markup.Html:
  """One question with both its trajectories, folded unless `is_open`."""
  before, after = pair.outcomes
  answers = run_data.sequence(pair.task.get("answers"))
  reference = " / ".join(map(run_data.string, answers)) or "none recorded"
  summary = tag(
    "summary",
    tag("span", pair.family, class_="chip") if pair.family else None,
    tag("span", _cut(_question(pair), _SHORT), class_="question"),
    tag("span", _chip(before), " → ", _chip(after), class_="outcomes"),
  )
  return tag(
    "details",
    summary,
    tag(
      "p",
      "Reference answer: ",
      tag("strong", _cut(reference, _SHORT)),
      class_="reference",
    ),
    tag(
      "div",
      _side("Before training", pair.before),
      _side("After training", pair.after),
      class_="sides",
    ),
    class_="pair card",
    open=is_open,
  )


def _side(title: str, record: run_data.Record | None) -> markup.Html:
  if record is None:
    sentence = "No trajectory of this question was recorded."
    return tag(
      "div",
      tag("h4", title),
      tag("p", sentence, class_="missing"),
      class_="side",
    )
  turns = run_data.sequence(record.get("turns"))
  shown = [_turn(i, t) for i, t in enumerate(turns[:_MAX_TURNS], 1)]
  if len(turns) > _MAX_TURNS:
    sentence = (
      f"Not shown: {scales.count(len(turns) - _MAX_TURNS, 'more turn')}."
    )
    shown.append(tag("li", sentence, class_="note"))
  outcome = pairs_lib.outcome(record)
  answer = run_data.string(record.get("answer"))
  failure = run_data.string(record.get("failure"))
  return tag(
    "div",
    tag("h4", title, tag("span", _facts(record, len(turns)), class_="facts")),
    tag("ol", shown, class_="turns")
    if turns
    else tag("p", "No turn was taken.", class_="missing"),
    tag(
      "p",
      tag("span", "Answer", class_="label"),
      _text(answer, _SHORT) if answer else tag("em", "none"),
      _chip(outcome),
      class_=f"answer {outcome}",
    ),
    tag("p", "Failure: ", _cut(failure, _SHORT), class_="note")
    if failure
    else None,
    class_="side",
  )


def _facts(record: run_data.Record, turns: int) -> str:
  facts = [scales.count(turns, "turn")]
  reason = run_data.string(record.get("stop_reason"))
  if reason:
    facts.append(f"stopped: {_cut(reason, 40)}")
  seconds = run_data.number(record.get("duration_s"))
  if seconds is not None and seconds > 0:
    facts.append(scales.duration(seconds))
  return " · ".join(facts)


def _turn(index: int, turn: run_data.Record) -> markup.Html:
  decision = run_data.mapping(turn.get("decision"))
  rows = [("Plan", _plan(decision, turn))]
  rows += [("Call", call) for call in _calls(turn)]
  rows += [("Result", result) for result in _results(turn)]
  rows.append(("Verdict", _verdict(run_data.mapping(turn.get("verdict")))))
  name = run_data.string(decision.get("tool_name"))
  return tag(
    "li",
    tag(
      "p",
      tag("span", f"Turn {index}", class_="label"),
      tag("span", _cut(name, 60), class_="tool") if name else None,
      class_="turn-head",
    ),
    tag(
      "dl",
      [(tag("dt", label), tag("dd", content)) for label, content in rows],
    ),
  )


def _plan(decision: run_data.Record, turn: run_data.Record) -> markup.Html:
  if "tool_name" not in decision:
    reason = run_data.string(decision.get("reason")) or "no plan recorded"
    words = run_data.string(turn.get("planner_text"))
    return markup.join(
      [
        tag("span", f"unreadable: {_cut(reason, _SHORT)}", class_="error"),
        _text(words, _LONG) if words else None,
      ]
    )
  context = run_data.string(decision.get("context"))
  why = run_data.string(decision.get("justification"))
  return markup.join(
    [
      _text(run_data.string(decision.get("sub_goal")), _SHORT),
      tag("span", "context: ", _text(context, _SHORT), class_="context")
      if context
      else None,
      tag("span", _text(why, _SHORT), class_="context") if why else None,
    ]
  )


def _calls(turn: run_data.Record) -> list[markup.Html]:
  calls = run_data.sequence(turn.get("calls"))
  written = []
  for call in map(run_data.mapping, calls[:_MAX_CALLS]):
    arguments = call.get("arguments")
    inside = ", ".join(
      f"{name}={run_data.literal(value)}"
      for name, value in run_data.mapping(arguments).items()
    )
    text = f"{run_data.string(call.get('tool_name'))}({inside})"
    written.append(tag("code", _text(text, _LONG)))
  if len(calls) > _MAX_CALLS:
    sentence = (
      f"Not shown: {scales.count(len(calls) - _MAX_CALLS, 'more call')}."
    )
    written.append(tag("span", sentence, class_="note"))
  command = run_data.string(turn.get("command"))
  if not calls and command:
    unread = tag("span", "unreadable command", class_="error")
    written.append(markup.join([unread, tag("code", _text(command, _LONG))]))
  return written


def _results(turn: run_data.Record) -> list[markup.Html]:
  results = run_data.sequence(turn.get("results"))
  written = []
  for result in map(run_data.mapping, results[:_MAX_CALLS]):
    error = run_data.string(result.get("error"))
    written.append(
      markup.join(
        [
          tag("span", f"error: {_cut(error, 60)}", class_="error")
          if error
          else None,
          _text(run_data.string(result.get("output")), _LONG),
        ]
      )
    )
  if len(results) > _MAX_CALLS:
    sentence = (
      f"Not shown: {scales.count(len(results) - _MAX_CALLS, 'more result')}."
    )
    written.append(tag("span", sentence, class_="note"))
  return written


def _verdict(verdict: run_data.Record) -> markup.Html:
  if not isinstance(verdict.get("stop"), bool):
    return tag("em", "none")
  word = "STOP" if verdict["stop"] else "CONTINUE"
  reason = run_data.string(verdict.get("reason"))
  unread = verdict.get("parsed") is False
  return markup.join(
    [
      tag("span", word, class_=f"verdict {word.lower()}"),
      tag("span", "unreadable, so it continues", class_="error")
      if unread
      else None,
      _text(reason, _SHORT) if reason else None,
    ]
  )


def _chip(outcome: str) -> markup.Html:
  return tag("span", _SIGNS[outcome], class_=f"outcome {outcome}")


def _question(pair: pairs_lib.Pair) -> str:
  return run_data.string(pair.task.get("question")) or pair.question_id


def _text(text: str, limit: int) -> markup.Html:
  return tag("span", _cut(text, limit), class_="text")


def _cut(text: str, limit: int) -> str:
  if len(text) <= limit:
    return text
  return f"{text[:limit]} … [{len(text) - limit:,} more characters]"
