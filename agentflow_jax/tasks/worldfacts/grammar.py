"""Reads questions: the templates of relations.py, backwards.

  "What is the currency of the country whose capital is Vientiane?"
    -> Query(paths=(Path(name="Vientiane", links=("country",),
                         attribute="currency"),), operation=None)
  "What is the sum of the atomic number of Tin and 79?"
    -> Query(paths=(Path(name="Tin", links=(), attribute="number"),
                    Path(name="79", links=(), attribute=NUMBER)),
             operation=SUM)

Names are read by their place in the template, not looked up: the grammar works
for names nobody has seen, and knows no facts. A text that is no question of
this world has no Query.
"""

import dataclasses
import functools
import re

from agentflow_jax.tasks.worldfacts import (
  operations,
  relations,
  schema,
  templates,
)

# The attribute of a path that is a number by itself.
NUMBER = ""
# Longer texts are not questions of this world; bounds the matching time.
_MAX_CHARS = 400
# A name or a description; a question is one sentence.
_ANY = r"[^.?\n]+?"
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Path:
  """How a value is reached: from a page over links to an attribute.

  A number in the question is its own value: a path with no way to go.

  Example: the birth year of the author of Dune is
  Path(name="Dune", links=("author",), attribute="birth").
  """

  name: str
  links: tuple[str, ...]
  attribute: str

  def __str__(self) -> str:
    """In words: "the birth year of the author of Dune"."""
    if self.attribute == NUMBER:
      return self.name
    words = [relations.PHRASES[name] for name in (*self.links, self.attribute)]
    return "".join(f"the {word} of " for word in reversed(words)) + self.name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
  """What a question asks: one path, or an operation on two."""

  paths: tuple[Path, ...]
  operation: schema.Operation | None

  @property
  def attributes(self) -> tuple[str, ...]:
    """The attributes on its paths, each once, in the order they are needed."""
    needed = [
      name
      for path in self.paths
      for name in (*path.links, path.attribute)
      if name != NUMBER
    ]
    return tuple(dict.fromkeys(needed))


@functools.lru_cache(maxsize=4096)
def parse(question: str) -> Query | None:
  """What `question` asks, or None if this world does not ask like that."""
  question = question.strip()
  if len(question) > _MAX_CHARS:
    return None
  for operation, attribute, pattern in _compute_patterns():
    if match := pattern.fullmatch(question):
      paths = tuple(_path(match[g], attribute) for g in ("a", "b"))
      return Query(paths=paths, operation=operation)
  for operation, pattern in _operand_patterns():
    if match := pattern.fullmatch(question):
      operands = [_operand(match[group]) for group in ("a", "b")]
      if None not in operands:
        return Query(paths=tuple(filter(None, operands)), operation=operation)
  for attribute, pattern in _value_patterns():
    if match := pattern.fullmatch(question):
      return Query(paths=(_path(match["x"], attribute),), operation=None)
  return None


def bare_name(reference: str) -> str:
  """A page's title from a reference in a sentence: "the Rhine" is "Rhine"."""
  return reference.removeprefix("the ")


def _path(reference: str, attribute: str) -> Path:
  """The path from a name or a description ("the author of Dune")."""
  for link, pattern in _description_patterns():
    if match := pattern.fullmatch(reference):
      inner = _path(match["x"], link)
      return Path(
        name=inner.name,
        links=(*inner.links, inner.attribute),
        attribute=attribute,
      )
  return Path(name=bare_name(reference), links=(), attribute=attribute)


def _operand(text: str) -> Path | None:
  """ "79" or "the atomic number of Tin"; anything else is no operand."""
  if _DIGITS.fullmatch(text):
    return Path(name=text, links=(), attribute=NUMBER)
  for attribute, pattern in _quantity_patterns():
    if match := pattern.fullmatch(text):
      return _path(match["x"], attribute)
  return None


@functools.lru_cache(maxsize=1)
def _compute_patterns() -> list[tuple[schema.Operation, str, re.Pattern[str]]]:
  """Patterns with the groups a and b."""
  fields = {"a": _ANY, "b": _ANY}
  found = []
  for attribute in relations.attributes():
    for template in attribute.comparisons:
      pattern = templates.pattern(template, fields)
      found.append((schema.Operation.DIFFERENCE, attribute.name, pattern))
    for operation in attribute.operations:
      for template in operations.COMPUTE_QUESTIONS[operation]:
        pattern = templates.pattern(
          template, {**fields, "plural": re.escape(attribute.plural)}
        )
        found.append((operation, attribute.name, pattern))
  return found


@functools.lru_cache(maxsize=1)
def _operand_patterns() -> list[tuple[schema.Operation, re.Pattern[str]]]:
  """Patterns with the groups a and b, which need not be operands."""
  fields = {"a": _ANY, "b": _ANY}
  return [
    (operation, templates.pattern(template, fields))
    for operation, wordings in operations.OPERAND_QUESTIONS.items()
    for template in wordings
  ]


@functools.lru_cache(maxsize=1)
def _quantity_patterns() -> list[tuple[str, re.Pattern[str]]]:
  """Patterns with the group x, of "the atomic number of {x}" and the like."""
  return [
    (
      attribute.name,
      templates.pattern(
        operations.OPERAND,
        {"singular": re.escape(attribute.singular), "x": _ANY},
      ),
    )
    for attribute in relations.attributes()
    if attribute.operations
  ]


@functools.lru_cache(maxsize=1)
def _value_patterns() -> list[tuple[str, re.Pattern[str]]]:
  """Patterns with the group x."""
  return [
    (attribute.name, templates.pattern(template, {"x": _ANY}))
    for attribute in relations.attributes()
    for template in attribute.questions
  ]


@functools.lru_cache(maxsize=1)
def _description_patterns() -> list[tuple[str, re.Pattern[str]]]:
  """Patterns with the group x, of "the author of {x}" and the like."""
  return [
    (attribute.name, templates.pattern(template, {"x": _ANY}))
    for attribute in relations.attributes()
    for template in attribute.described
  ]
