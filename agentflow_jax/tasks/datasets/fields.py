"""Small readers of one row: texts, answers and options out of loose columns.

Each raises ValueError with the words a quarantine file shows.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

# How AgentFlow's files end some questions; our prompts ask for the tags.
_FORMAT_SENTENCE = re.compile(
  r"\s*When ready, output the final answer enclosed in <answer> and "
  r"</answer> tags\. Do not generate any content after the </answer> tag\.\s*$"
)
_MAX_ANSWERS = 200


def question(row: Row, *names: str) -> str:
  """The question, without AgentFlow's sentence about the answer's format."""
  return _FORMAT_SENTENCE.sub("", text(row, *names)).strip()


def text(row: Row, *names: str) -> str:
  """The first of the columns that is there; it must be a text with words."""
  name = _present(row, names)
  value = row[name]
  if not isinstance(value, str):
    raise ValueError(f"{name!r} is no text but {type(value).__name__}")
  if not value.strip():
    raise ValueError(f"{name!r} is empty")
  return _encodable(value.strip(), name)


def answers(row: Row, *names: str) -> tuple[str, ...]:
  """A text, a number, a list of them, or a list of texts as JSON text.

  "[-3,2]" is one answer, an interval.
  """
  name = _present(row, names)
  value = row[name]
  parsed = _listed(value)
  if isinstance(parsed, list) and all(isinstance(x, str) for x in parsed):
    value = parsed
  values = value if isinstance(value, list | tuple) else [value]
  found = tuple(dict.fromkeys(scalar(item, name) for item in values))
  if not found:
    raise ValueError(f"{name!r} is empty")
  return found[:_MAX_ANSWERS]


def scalar(value: Any, name: str) -> str:
  """A text or a number as text; 142.0 is "142"."""
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    raise ValueError(f"{name!r} holds {type(value).__name__}, not a text")
  if isinstance(value, float):
    if not math.isfinite(value):
      raise ValueError(f"{name!r} is {value}")
    value = int(value) if value.is_integer() else value
  shown = str(value).strip()
  if not shown:
    raise ValueError(f"{name!r} is empty")
  return _encodable(shown, name)


def options(row: Row, *names: str) -> tuple[str, ...]:
  """Texts of the options without their letters, A first.

  A list, one written as JSON text, or a mapping from letters.
  """
  name = _present(row, names)
  value = _listed(row[name])
  if isinstance(value, Mapping):
    value = [value[key] for key in sorted(value) if value[key] is not None]
  if not isinstance(value, list | tuple) or len(value) < 2:
    raise ValueError(f"{name!r} is no list of options")
  found = []
  for index, item in enumerate(value):
    letter = chr(ord("A") + index)
    found.append(
      re.sub(rf"^\(?{letter}[.):]\s+", "", scalar(item, name)).strip()
    )
  if not all(found):
    raise ValueError(f"{name!r} has an empty option")
  return tuple(found)


def lettered(texts: tuple[str, ...]) -> str:
  """Options as a question prints them, one line each.

  Example: lettered(("yes", "no")) is "A. yes\\nB. no".
  """
  return "\n".join(
    f"{chr(ord('A') + index)}. {option}" for index, option in enumerate(texts)
  )


def identifier(row: Row, *names: str) -> str:
  """The id as text, or "" if no column has one."""
  for name in names:
    value = row.get(name)
    if value is None or value == "":
      continue
    if isinstance(value, bool) or not isinstance(value, str | int):
      raise ValueError(f"{name!r} is no id but {type(value).__name__}")
    return _encodable(str(value), name)
  return ""


def boxed(solution: str) -> str:
  """The contents of the last \\boxed{...}.

  Raises:
    ValueError: there is none, or it is empty.
  """
  start = max(solution.rfind("\\boxed{"), solution.rfind("\\fbox{"))
  if start >= 0:
    begin = solution.index("{", start) + 1
    depth = 1
    for end in range(begin, len(solution)):
      depth += {"{": 1, "}": -1}.get(solution[end], 0)
      if depth == 0 and solution[begin:end].strip():
        return solution[begin:end].strip()
  raise ValueError("the solution has no \\boxed answer")


def _listed(value: Any) -> Any:
  """The list that a text is the JSON of; else the value itself."""
  if not isinstance(value, str) or not value.strip().startswith("["):
    return value
  try:
    parsed = json.loads(value)
  except (ValueError, RecursionError):
    return value
  return parsed if isinstance(parsed, list) and parsed else value


def _present(row: Row, names: tuple[str, ...]) -> str:
  for name in names:
    if row.get(name) is not None:
      return name
  raise ValueError(f"no field {' or '.join(map(repr, names))}")


def _encodable(value: str, name: str) -> str:
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as error:
    raise ValueError(f"{name!r} is not UTF-8 text") from error
  return value
