"""Reads prompts: the question, the memory's turns, and the facts in them.

This is all a rule knows. It sees the text of one prompt, as a language model
would, and never the tables, the gold answer or another call. Facts are read
from the lines `Title: sentences` of search results with the patterns of the
very templates that wrote the pages; any other text yields no facts.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks.worldfacts import grammar, relations, templates

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
_NUMBER = re.compile(r"-?[0-9]+")
_SENTENCE = re.compile(r"[^.]+\.")
# The mark of text that was cut out has brackets; values have none.
_VALUE = r"[^.\[\]]+"
_DIGITS = "[0-9]+"
# Pages are far shorter; bounds the matching time of hostile lines.
_MAX_LINE_CHARS = 1000


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
  """What a memory establishes.

  `facts` maps (title in lower case, attribute) to the value and the turn it
  was first seen in. `numbers` are the Python results, with their turns.

  Example: facts[("laos", "currency")] is ("kip", 0).
  """

  facts: Mapping[tuple[str, str], tuple[str, int]]
  numbers: Sequence[tuple[str, int]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
  """The next fact on a path: an attribute of a page nobody has read yet."""

  name: str
  attribute: str

  @property
  def wanted(self) -> str:
    """What to look for on the page: "the currency"."""
    return f"the {relations.PHRASES[self.attribute]}"

  def __str__(self) -> str:
    return f"{self.wanted} of {self.name}"


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


def know(turns: Sequence[SeenTurn]) -> Known:
  """Collects the facts and numbers of a memory's turns."""
  facts: dict[tuple[str, str], tuple[str, int]] = {}
  numbers = []
  for index, turn in enumerate(turns):
    if is_search(turn.tool_name):
      for line in turn.result.split("\n"):
        if len(line) <= _MAX_LINE_CHARS:
          for key, value in _read_passage(line):
            facts.setdefault(key, (value, index))
    elif is_python(turn.tool_name):
      if _NUMBER.fullmatch(turn.result.strip()):
        numbers.append((turn.result.strip(), index))
  return Known(facts=facts, numbers=numbers)


def resolve(path: grammar.Path, known: Known) -> tuple[str, int] | Missing:
  """The value at the end of a path and the turn it was known in, or a gap.

  A number in the question was known before the first turn, in turn -1.
  """
  name = path.name
  if path.attribute == grammar.NUMBER:
    return name, -1
  latest = 0
  for attribute in (*path.links, path.attribute):
    fact = known.facts.get((name.lower(), attribute))
    if fact is None:
      return Missing(name=name, attribute=attribute)
    name, turn = fact
    latest = max(latest, turn)
  return name, latest


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


@functools.lru_cache(maxsize=4096)
def _read_passage(line: str) -> tuple[tuple[tuple[str, str], str], ...]:
  """The facts of one line `Title: sentences`, as ((title, attribute), value).

  A sentence that is cut or foreign is no fact.
  """
  title, colon, text = line.partition(": ")
  if not colon:
    return ()
  found = []
  for sentence in _SENTENCE.findall(text):
    for attribute, links, pattern in _sentence_patterns():
      match = pattern.fullmatch(sentence.strip())
      if match is None:
        continue
      named = match.groupdict().get("name", title)
      if named in (title, f"The {title}"):
        value = grammar.bare_name(match["value"]) if links else match["value"]
        found.append(((title.lower(), attribute), value))
  return tuple(found)


@functools.lru_cache(maxsize=1)
def _sentence_patterns() -> list[tuple[str, bool, re.Pattern[str]]]:
  """(attribute, whether its value is a name, pattern) of every sentence."""
  return [
    (
      attribute.name,
      bool(attribute.links_to),
      templates.pattern(
        attribute.sentence,
        {"name": "[^.]+?", "value": _DIGITS if attribute.numeric else _VALUE},
      ),
    )
    for attribute in relations.attributes()
  ]
