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

from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.worldfacts import grammar, relations, templates

_NUMBER = re.compile(r"-?[0-9]+")
_SENTENCE = re.compile(r"[^.]+\.")
# The mark of text that was cut out has brackets; values have none.
_VALUE = r"[^.\[\]]+"
_DIGITS = "[0-9]+"
# Pages are far shorter; bounds the matching time of hostile lines.
_MAX_LINE_CHARS = 1000


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


def know(turns: Sequence[prompt_reader.SeenTurn]) -> Known:
  """Collects the facts and numbers of a memory's turns."""
  facts: dict[tuple[str, str], tuple[str, int]] = {}
  numbers = []
  for index, turn in enumerate(turns):
    if prompt_reader.is_search(turn.tool_name):
      for line in turn.result.split("\n"):
        if len(line) <= _MAX_LINE_CHARS:
          for key, value in _read_passage(line):
            facts.setdefault(key, (value, index))
    elif prompt_reader.is_python(turn.tool_name):
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
