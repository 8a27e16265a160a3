"""Pages: one short passage per entity, for the search index.

  Laos       Laos is a country in Asia. Its currency is the kip. ...
  Vientiane  Vientiane is the national capital of Laos.

A page states its own facts and nothing of the things it links to, so a
question over two pages needs two searches.
"""

import functools
import hashlib
from collections.abc import Iterator

from agentflow_jax.tasks.worldfacts import facts, relations, schema, templates


@functools.lru_cache(maxsize=1)
def passages() -> tuple[tuple[str, str, str], ...]:
  """(id, title, text) of every page; ids and titles are unique."""
  return tuple(
    (f"{entity.kind}/{entity.slug}", entity.name, page_text(entity))
    for entity in facts.entities().values()
  )


def real_passages() -> Iterator[tuple[str, str]]:
  """(title, text) of the pages about real things."""
  for entity in facts.real_entities().values():
    yield entity.name, page_text(entity)


@functools.lru_cache(maxsize=1)
def titles() -> tuple[str, ...]:
  """Every name that has a page."""
  return tuple(facts.entities())


def content_hash() -> str:
  """Names the contents of all pages; another version has another one."""
  digest = hashlib.blake2b(repr(passages()).encode("utf-8"), digest_size=6)
  return digest.hexdigest()


def page_text(entity: schema.Entity) -> str:
  """The sentences of a page: one per known attribute."""
  kind = relations.KINDS[entity.kind]
  name = entity.reference[0].upper() + entity.reference[1:]
  written = [
    _sentence(entity, attribute)
    for attribute in kind.attributes
    if attribute.name in entity.values
  ]
  if not written or "{name}" not in written[0]:
    written.insert(0, kind.opening)
  return " ".join(templates.fill(sentence, name=name) for sentence in written)


def _sentence(entity: schema.Entity, attribute: schema.Attribute) -> str:
  """The attribute's sentence, with `{name}` still open."""
  value = entity.value(attribute.name)
  target = facts.target(entity, attribute)
  if target and "the {value}" not in attribute.sentence:
    value = target.reference
  return attribute.sentence.replace("{value}", value)
