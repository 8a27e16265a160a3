"""Invented things: a second world, for training only.

A planner that trains on the few hundred names of the real world learns those
names, and forgets how to copy one that it has never written. So the world is
there twice: as it is, and with every name made up and every value that is no
link drawn from another thing of its kind. Training asks about both; held-out
questions are about the real world only.
"""

import itertools
import random
import re
from collections.abc import Iterator, Mapping

from agentflow_jax.tasks.worldfacts import relations, schema, stems

_SEED = "worldfacts/invented/4"
_WORD = re.compile(r"[A-Za-z]+")

Values = Mapping[str, tuple[str, ...]]


def invent(real: Mapping[str, schema.Entity]) -> Iterator[schema.Entity]:
  """A copy of the real world with other names and other values.

  What is linked stays linked: the capital of an invented country is an
  invented city. The same entities on every machine.

  Args:
    real: all real entities by name.

  Yields:
    One entity per real one; all names are different.
  """
  rng = random.Random(_SEED)
  names = _Names(real, rng)
  pools = _pools(real)
  renamed = {name: names.make(name) for name in real}
  for entity in real.values():
    name = renamed[entity.name]
    yield schema.Entity(
      kind=entity.kind,
      name=name,
      slug=schema.slug(name),
      article=relations.KINDS[entity.kind].article,
      values=_values(entity, real, renamed, pools, rng),
      is_invented=True,
    )


class _Names:
  """Makes names that nobody has; no new word is in another name or value."""

  def __init__(self, real: Mapping[str, schema.Entity], rng: random.Random):
    self._rng = rng
    self._maker = stems.NameMaker(real)
    # Words of values count too: none may turn into a name.
    self._taken = {
      word.lower()
      for entity in real.values()
      for text in (entity.name, *itertools.chain(*entity.values.values()))
      for word in _WORD.findall(text)
    }

  def make(self, old: str) -> str:
    """One that looks like `old`."""
    while True:
      name = self._maker.name(self._rng, old)
      new = {word.lower() for word in set(name.split()).difference(old.split())}
      if not new & self._taken:
        self._taken |= new
        return name


def _pools(
  real: Mapping[str, schema.Entity],
) -> dict[tuple[str, str], list[tuple[str, ...]]]:
  """(kind, attribute) -> the values that occur, as often as they occur.

  Without those that name a page ("Solomon Islands dollar"): on another page
  they would lead astray.
  """
  pools: dict[tuple[str, str], list[tuple[str, ...]]] = {}
  for entity in real.values():
    for attribute, value in entity.values.items():
      if not _holds_name(value[0], real):
        pools.setdefault((entity.kind, attribute), []).append(value)
  return pools


def _holds_name(text: str, real: Mapping[str, schema.Entity]) -> bool:
  words = text.split()
  return any(
    " ".join(words[first:last]) in real
    for first in range(len(words))
    for last in range(first + 1, len(words) + 1)
  )


def _values(
  entity: schema.Entity,
  real: Mapping[str, schema.Entity],
  renamed: Mapping[str, str],
  pools: Mapping[tuple[str, str], list[tuple[str, ...]]],
  rng: random.Random,
) -> Values:
  """The known attributes: links to invented things, other values drawn."""
  values = {}
  for attribute in relations.KINDS[entity.kind].attributes:
    if attribute.name not in entity.values:
      continue
    own = entity.values[attribute.name]
    if not attribute.links_to:
      own = rng.choice(pools[entity.kind, attribute.name])
    elif own[0] in real:
      own = (renamed[own[0]],)
    values[attribute.name] = own
  return values
