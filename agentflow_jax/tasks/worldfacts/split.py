"""Which entities training may ask about and which are held out.

Entities that any question could connect are kept together: a country with its
capital and its mountains, an author with the books, a planet with its moons, a
river with what flows into it, and names that contain each other (Virginia and
West Virginia). About 30 % of each kind of cluster is held out, by a hash of
the names: no title on a held-out question's path occurs in a train question.

Invented entities (invented.py) are all for training.

All pages are in the search index, whatever their split: searching is allowed,
what is new is what to search for.
"""

import functools
import hashlib
from collections.abc import Sequence

from agentflow_jax.tasks.worldfacts import facts, names, relations, schema

TRAIN = "train"
HELD_OUT = "held_out"
SPLITS = (TRAIN, HELD_OUT)
HELD_OUT_SHARE = 0.3


def members(split_name: str) -> Sequence[schema.Entity]:
  """The entities of a split, in the order of the tables.

  Raises:
    ValueError: there is no such split.
  """
  if split_name not in SPLITS:
    raise ValueError(f"no split {split_name!r}; known are {', '.join(SPLITS)}")
  held_out = _held_out()
  return [
    entity
    for entity in facts.entities().values()
    if (entity.name in held_out) == (split_name == HELD_OUT)
  ]


@functools.lru_cache(maxsize=1)
def clusters() -> tuple[tuple[str, ...], ...]:
  """Names that belong together, each cluster in the order of the tables."""
  entities = facts.real_entities()
  leader = {name: name for name in entities}

  def find(name: str) -> str:
    while leader[name] != name:
      name = leader[name]
    return name

  for entity in entities.values():
    for attribute in relations.KINDS[entity.kind].attributes:
      target = facts.target(entity, attribute)
      if target is not None:
        leader[find(entity.name)] = find(target.name)
  finder = names.NameFinder([n for n in entities if " " not in n])
  for name in entities:
    for inner in finder.find(name):
      leader[find(name)] = find(inner)
  grouped: dict[str, list[str]] = {}
  for name in entities:
    grouped.setdefault(find(name), []).append(name)
  return tuple(tuple(names_C) for names_C in grouped.values())


@functools.lru_cache(maxsize=1)
def _held_out() -> frozenset[str]:
  """Fills the share of every kind of cluster, in the order of the hashes.

  A cluster's kind is that of its first entity: a country, an author, a planet.
  """
  entities = facts.real_entities()
  by_kind: dict[str, list[tuple[str, ...]]] = {}
  for cluster in clusters():
    by_kind.setdefault(entities[cluster[0]].kind, []).append(cluster)
  held_out: set[str] = set()
  for same_kind in by_kind.values():
    room = HELD_OUT_SHARE * sum(len(cluster) for cluster in same_kind)
    for cluster in sorted(same_kind, key=_digest):
      if len(cluster) <= room:
        held_out.update(cluster)
        room -= len(cluster)
  return frozenset(held_out)


def _digest(cluster: tuple[str, ...]) -> bytes:
  key = "/".join(sorted(cluster))
  return hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest()
