"""The nouns of worldfacts: Kind, Attribute, Operation, Entity.

Templates are plain text with fields: `{x}` is a thing by name or by
description, `{a}` and `{b}` the two things of a computation, `{name}` a page's
title, `{value}` an attribute's value, `{singular}` and `{plural}` the attribute
of a computation. They are filled and turned into patterns by templates.py.
"""

import dataclasses
import enum
from collections.abc import Mapping


class Operation(enum.StrEnum):
  """What a `compute` question does with its two numbers."""

  SUM = "sum"
  DIFFERENCE = "difference"  # the larger minus the smaller
  PRODUCT = "product"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
  """One thing that can be known of a kind.

  `links_to` names the kind of page a value can have; then `described` are ways
  to point at that page without its title, and `hops` the attributes worth
  asking of it. `singular`, `plural` and `operations` are for attributes that
  can be computed with; in `comparisons` {a} has the larger value.

  Example: the currency of a country, with the sentence "Its currency is the
  {value}." and questions like "Which currency does {x} use?"
  """

  name: str  # the table's column, and the fact's key
  phrase: str  # in a sub-goal: "find the <phrase>"
  sentence: str
  questions: tuple[str, ...]
  numeric: bool = False
  links_to: str = ""
  described: tuple[str, ...] = ()
  hops: tuple[str, ...] = ()
  singular: str = ""
  plural: str = ""
  comparisons: tuple[str, ...] = ()
  operations: tuple[Operation, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
  """A kind of page.

  `opening` is the first sentence where the first attribute's value is not
  known. `article` stands before every name of the kind ("the Rhine").
  """

  name: str
  opening: str
  attributes: tuple[Attribute, ...]
  article: str = ""

  def attribute(self, name: str) -> Attribute:
    """The attribute of that name; KeyError if the kind has none."""
    for attribute in self.attributes:
      if attribute.name == name:
        return attribute
    raise KeyError(f"{self.name} has no attribute {name!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
  """One thing with a page.

  `values` has the known attributes; a value comes first, then its aliases.

  Example: Entity(kind="country", name="Laos", slug="laos", article="",
                  values={"currency": ("kip", "Lao kip")})
  """

  kind: str
  name: str  # the page's title; unique
  slug: str  # the name as part of an id: "new_york"
  article: str
  values: Mapping[str, tuple[str, ...]]
  is_invented: bool = False  # of the invented part of the world

  @property
  def reference(self) -> str:
    """The name inside a sentence: "Laos", "the Rhine"."""
    return f"{self.article} {self.name}" if self.article else self.name

  def value(self, attribute: str) -> str:
    """The value pages show; KeyError if it is not known."""
    return self.values[attribute][0]

  def number(self, attribute: str) -> int:
    """The value of a numeric attribute."""
    return int(self.value(attribute))


def slug(name: str) -> str:
  """A name as part of an id: "New York" is "new_york"."""
  return "".join(c.lower() if c.isalnum() else "_" for c in name)


def text(
  name: str, sentence: str, *questions: str, phrase: str = ""
) -> Attribute:
  """A value that is only named."""
  return Attribute(
    name=name, phrase=phrase or name, sentence=sentence, questions=questions
  )


def link(
  name: str,
  sentence: str,
  *questions: str,
  to: str,
  described: tuple[str, ...],
  hops: tuple[str, ...],
) -> Attribute:
  """A value that can have a page of its own, of the kind `to`."""
  return Attribute(
    name=name,
    phrase=name,
    sentence=sentence,
    questions=questions,
    links_to=to,
    described=described,
    hops=hops,
  )


def size(
  name: str, unit: str, adjective: str, comparative: str, *extra: str
) -> Attribute:
  """A measured size, rounded; `extra` are further ways to ask for it."""
  return Attribute(
    name=name,
    phrase=name,
    sentence=f"Its {name} is about {{value}} {unit}.",
    questions=(
      f"What is the {name} of {{x}} in {unit}?",
      f"How {adjective} is {{x}} in {unit}?",
      *extra,
    ),
    numeric=True,
    singular=f"{name} in {unit}",
    plural=f"{name}s in {unit}",
    comparisons=(f"How many {unit} {comparative} is {{a}} than {{b}}?",),
    operations=(Operation.SUM, Operation.DIFFERENCE),
  )


def year(name: str, phrase: str, sentence: str, did: str, do: str) -> Attribute:
  """A year in which something was done ("was" {x} "born")."""
  return Attribute(
    name=name,
    phrase=phrase,
    sentence=sentence,
    questions=(
      f"What is the {phrase} of {{x}}?",
      f"In which year {did} {{x}} {do}?",
      f"When {did} {{x}} {do}?",
    ),
    numeric=True,
    singular=phrase,
    plural=f"{phrase}s",
    comparisons=(f"How many years after {{b}} {did} {{a}} {do}?",),
    operations=(Operation.DIFFERENCE,),
  )
