"""What the modules wrote, read into typed values.

Pure functions that never raise, whatever the text: an unreadable plan is a
`ParseFailure`, an unreadable verdict is CONTINUE with `parsed=False`, a
missing answer is "". Time is linear in the text. Commands are read in
agent/commands.py.

Nothing here guesses: a tool name must be the tool's, up to case, blanks and
underscores, and STOP counts only where the format puts it, because "we should
not STOP" contains the word too.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow_jax.agent import lenient_json, quoting
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

# Model text is read up to here, from its end, where the decision stands.
_MAX_CHARS = 100_000
# An unknown tool's name as memory and records keep it.
_MAX_TOOL_NAME_CHARS = 200
_MAX_REASON_CHARS = 2000

# A label at a line start, behind list numbers and markdown but not behind
# ">", which marks quoted lines.
_PLAN_LABEL = re.compile(
  r"^[ \t#*_`-]*+(?:\d{1,2}[.)][ \t*_]*+)?"
  r"(?P<label>justification|context|sub[- _]?goal|tool[ _]?name)"
  r"[ \t*_]*+[:\uff1a]",
  re.IGNORECASE | re.MULTILINE,
)
_CONTEXT, _SUB_GOAL, _TOOL_NAME = "context", "subgoal", "toolname"
_PLAN_ORDER = (_CONTEXT, _SUB_GOAL, _TOOL_NAME)
_SHOWN = {
  _CONTEXT: messages_lib.CONTEXT[:-1],
  _SUB_GOAL: messages_lib.SUB_GOAL[:-1],
  _TOOL_NAME: messages_lib.TOOL_NAME[:-1],
}

_NAME_SIGNS = str.maketrans("", "", "- _")
_NAME_BREAKS = re.compile(r"[\s_-]+")

_CONCLUSION = re.compile(
  r"^[ \t#*_`-]*+conclusion[ \t*_]*+[:\uff1a][ \t*_`\"']*+"
  r"(?P<word>stop|continue)[ \t*_`\"'.!]*+$",
  re.IGNORECASE | re.MULTILINE,
)
_ANSWER_TAG = re.compile(r"<(?P<close>/?)answer>", re.IGNORECASE)


def parse_decision(
  text: str, specs: Sequence[tool_lib.ToolSpec]
) -> trajectory_lib.Decision | trajectory_lib.ParseFailure:
  """Reads a plan: labelled lines, else one JSON object.

  The last complete run of Context, Sub-Goal and Tool Name counts, so a model
  may think aloud before it decides. A value runs to the next label; a tool
  name is one line. A tool that `specs` do not have keeps the model's spelling.

  Example:
    "Context: Laos\\nSub-Goal: find the currency\\nTool Name: wikipedia search"
    is Decision(context="Laos", sub_goal="find the currency",
                tool_name="Wikipedia_Search_Tool").
  """
  text = quoting.scrub(text[-_MAX_CHARS:])
  labelled = _labelled_fields(text)
  if isinstance(labelled, trajectory_lib.ParseFailure):
    fields = _json_fields(text)
    if fields is None:
      return labelled
  else:
    fields = labelled
  return _decision(fields, specs)


def render_decision(decision: trajectory_lib.Decision) -> str:
  """The labelled text that `parse_decision` reads back, one line a field."""
  lines = []
  if decision.justification:
    lines.append(f"Justification: {_line(decision.justification)}")
  lines.append(f"{messages_lib.CONTEXT} {_line(decision.context)}".rstrip())
  lines.append(f"{messages_lib.SUB_GOAL} {_line(decision.sub_goal)}")
  lines.append(f"{messages_lib.TOOL_NAME} {_line(decision.tool_name)}")
  return "\n".join(lines)


def normalise_tool_name(
  text: str, specs: Sequence[tool_lib.ToolSpec]
) -> str | None:
  """The spec's name that `text` means, or None.

  Case, blanks, hyphens, underscores and quotes do not matter; aliases count.

  Example: "**wikipedia search**" is "Wikipedia_Search_Tool".
  """
  if len(text) > _MAX_TOOL_NAME_CHARS:
    return None
  wanted = _name_key(text)
  for spec in specs:
    if any(_name_key(name) == wanted for name in (spec.name, *spec.aliases)):
      return spec.name
  return None


def parse_verdict(text: str) -> trajectory_lib.Verdict:
  """STOP or CONTINUE from the last `Conclusion:` line that states one.

  Without such a line, a JSON object with a boolean `stop_signal` counts.
  Anything else is CONTINUE with `parsed=False`. The reason is the text before
  the conclusion (JSON: its `analysis` or `reason`).
  """
  text = quoting.scrub(text[-_MAX_CHARS:]).replace("\r\n", "\n")
  if all_stated := list(_CONCLUSION.finditer(text)):
    stated = all_stated[-1]
    return trajectory_lib.Verdict(
      stop=stated["word"].lower() == "stop",
      reason=_reason(text[: stated.start()]),
    )
  for value in lenient_json.find_values(text):
    if isinstance(value, Mapping) and isinstance(
      value.get("stop_signal"), bool
    ):
      reason = value.get("analysis", value.get("reason", ""))
      return trajectory_lib.Verdict(
        stop=value["stop_signal"],
        reason=_reason(
          quoting.scrub(reason) if isinstance(reason, str) else ""
        ),
      )
  return trajectory_lib.Verdict(stop=False, reason=_reason(text), parsed=False)


def extract_answer(text: str) -> str:
  """The text of the last complete `<answer>` element, stripped, else ""."""
  answer, start = "", None
  for tag in _ANSWER_TAG.finditer(text):
    if not tag["close"]:
      start = tag.end()
    elif start is not None:
      answer, start = text[start : tag.start()], None
  return quoting.scrub(answer.strip())


def _labelled_fields(
  text: str,
) -> dict[str, str] | trajectory_lib.ParseFailure:
  """The last complete run of labels with their values."""
  labels = list(_PLAN_LABEL.finditer(text))
  names = [_field_name(match["label"]) for match in labels]
  for i in range(len(names) - len(_PLAN_ORDER), -1, -1):
    if tuple(names[i : i + len(_PLAN_ORDER)]) == _PLAN_ORDER:
      break
  else:
    for name in reversed(_PLAN_ORDER):
      if name not in names:
        return trajectory_lib.ParseFailure(reason=f"no {_SHOWN[name]}")
    return trajectory_lib.ParseFailure(reason="labels out of order")
  first = i - 1 if i > 0 and names[i - 1] == "justification" else i
  fields = {}
  for k in range(first, i + len(_PLAN_ORDER)):
    end = labels[k + 1].start() if k + 1 < len(labels) else len(text)
    fields[names[k]] = text[labels[k].end() : end]
  return fields


def _json_fields(text: str) -> dict[str, str] | None:
  """The fields of the first JSON object that has a plan's keys."""
  for value in lenient_json.find_values(text):
    if not isinstance(value, Mapping):
      continue
    fields = {
      _field_name(str(key)): item
      for key, item in value.items()
      if item is not None
    }
    if not fields.keys().isdisjoint(_PLAN_ORDER):
      return {key: _as_text(item) for key, item in fields.items()}
  return None


def _decision(
  fields: Mapping[str, str], specs: Sequence[tool_lib.ToolSpec]
) -> trajectory_lib.Decision | trajectory_lib.ParseFailure:
  name_lines = _value(fields.get(_TOOL_NAME, "")).splitlines()
  tool_name = _bare(name_lines[0]) if name_lines else ""
  sub_goal = _value(fields.get(_SUB_GOAL, ""))
  for name, value in ((_TOOL_NAME, tool_name), (_SUB_GOAL, sub_goal)):
    if not value:
      return trajectory_lib.ParseFailure(reason=f"no {_SHOWN[name]}")
  if _CONTEXT not in fields:
    return trajectory_lib.ParseFailure(reason=f"no {_SHOWN[_CONTEXT]}")
  known = normalise_tool_name(tool_name, specs)
  return trajectory_lib.Decision(
    context=_value(fields[_CONTEXT]),
    sub_goal=sub_goal,
    tool_name=known or tool_name[:_MAX_TOOL_NAME_CHARS].rstrip(),
    justification=_value(fields.get("justification", "")),
  )


def _field_name(label: str) -> str:
  """A label as the fields' keys are written: "Sub-Goal" is "subgoal"."""
  return label.translate(_NAME_SIGNS).lower()


def _value(text: str) -> str:
  """A field without the markdown around it; `2**10` inside it stays."""
  text = text.strip()
  if text.endswith("```") and text.count("```") % 2:
    text = text[:-3].rstrip()
  # "**Context:** Laos" leaves a leading "**", "**Context: Laos**" a trailing
  # one; a pair around the value goes as well.
  text = text.removeprefix("**").lstrip()
  if text.endswith("**"):
    text = text[:-2].rstrip()
  return text


def _bare(name: str) -> str:
  return name.strip().strip("*`\"'[]<>.").strip()


def _name_key(name: str) -> str:
  return _NAME_BREAKS.sub("_", _bare(name)).strip("_").lower()


def _as_text(value: Any) -> str:
  if isinstance(value, str):
    return quoting.scrub(value)
  try:
    return quoting.scrub(json.dumps(value, ensure_ascii=False))
  except RecursionError:
    return ""


def _line(text: str) -> str:
  return quoting.one_line(text, _MAX_CHARS)


def _reason(text: str) -> str:
  return quoting.cut_middle(text.strip(), _MAX_REASON_CHARS)[0]
