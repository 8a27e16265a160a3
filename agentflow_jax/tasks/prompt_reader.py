"""Reads compact and full prompts back: the question, the turns, the step.

For whoever plays a module by rule. Such a rule sees the text of one prompt, as
a language model would, and nothing else.
"""

import dataclasses
import re
from collections.abc import Sequence

from agentflow_jax.core import messages as messages_lib

_LABELS = frozenset(
  (
    messages_lib.QUESTION,
    messages_lib.ANALYSIS,
    messages_lib.MEMORY,
    messages_lib.CONTEXT,
    messages_lib.SUB_GOAL,
    messages_lib.TOOL_NAME,
  )
)
_AFTER_RESULT = (messages_lib.VERDICT, messages_lib.COMMAND)
# All lines of the format that are about turns; most lines are not.
_TURN = "Turn "
_HEADLINE = re.compile(r"Turn \d+: (?P<plan>.*)")
# What a prompt says of its own turn, behind the memory.
_TURN_LINE = re.compile(r"Turn \d+ of \d+\b")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeenTurn:
  """One turn as the memory shows it; `result` is all its results' lines.

  `context` and `tool_name` are "" for a plan that could not be read.
  """

  tool_name: str
  result: str
  context: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
  """The sections of a prompt that rules use; "" where there is none.

  `last_line` tells prompts of one role apart, `has_memory` whether there is a
  memory section at all.
  """

  question: str
  turns: tuple[SeenTurn, ...]
  context: str
  sub_goal: str
  tool_name: str
  last_line: str
  has_memory: bool


def read_prompt(text: str) -> Prompt:
  """Splits a prompt at its labels.

  Labels in results are quoted by the agent, so the last label of a kind at a
  line start is the prompt's own.
  """
  lines = text.split("\n")
  found: dict[str, tuple[int, str]] = {}  # label: its line, the text behind
  for number, line in enumerate(lines):
    name, colon, rest = line.partition(":")
    label = name + colon
    if label in _LABELS:
      found[label] = number, rest.strip()

  def behind(label: str) -> str:
    return found[label][1] if label in found else ""

  memory = found.get(messages_lib.MEMORY)
  return Prompt(
    question=behind(messages_lib.QUESTION),
    turns=() if memory is None else _read_turns(lines[memory[0] + 1 :]),
    context=behind(messages_lib.CONTEXT),
    sub_goal=behind(messages_lib.SUB_GOAL),
    tool_name=behind(messages_lib.TOOL_NAME),
    last_line=lines[-1].strip(),
    has_memory=memory is not None,
  )


def is_search(tool_name: str) -> bool:
  """Whether the name is one of the search tool's."""
  return "search" in tool_name.lower()


def is_python(tool_name: str) -> bool:
  """Whether the name is one of the Python tool's."""
  return "python" in tool_name.lower()


def _read_turns(lines: Sequence[str]) -> tuple[SeenTurn, ...]:
  """Turns of a memory; lines outside results are skipped."""
  plans: list[str] = []
  results: list[list[str]] = []  # of every plan
  in_result = False
  for line in lines:
    turn_line = line.startswith(_TURN)
    if turn_line and (headline := _HEADLINE.fullmatch(line)):
      plans.append(headline["plan"])
      results.append([])
      in_result = False
    elif line.startswith(messages_lib.RESULT):
      if results:
        results[-1].append(line[len(messages_lib.RESULT) :].strip())
      in_result = True
    elif line.startswith(_AFTER_RESULT) or (
      turn_line and _TURN_LINE.match(line)
    ):
      in_result = False
    elif in_result and results:
      results[-1].append(line)
  return tuple(
    _seen_turn(plan, "\n".join(lines))
    for plan, lines in zip(plans, results, strict=True)
  )


def _seen_turn(plan: str, result: str) -> SeenTurn:
  """A turn by its headline; an unreadable plan names no tool."""
  tool_name, bar, rest = plan.partition(" | ")
  return SeenTurn(
    tool_name=tool_name if bar else "",
    result=result,
    context=rest.partition(" | ")[0],
  )


def passages(result: str) -> list[tuple[str, str]]:
  """(title, text) of every line `Title: text` of a search's result.

  Example: "Laos: Laos is a country." -> [("Laos", "Laos is a country.")].
  """
  lines = (line.partition(": ") for line in result.split("\n"))
  return [(title, text) for title, colon, text in lines if colon]


def tool_names(text: str) -> list[str]:
  """The tools that a compact prompt names, in its order."""
  for line in text.split("\n"):
    if line.startswith(messages_lib.TOOLS):
      names = line[len(messages_lib.TOOLS) :].split(",")
      return [name.strip() for name in names if name.strip()]
  return []
