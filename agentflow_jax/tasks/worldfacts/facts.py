"""The facts: data/*.tsv read into entities, once per process.

Beside them stand as many invented ones, for training (invented.py).

A table has one row per entity and one column per attribute of its kind. An
empty cell is a fact left out, because it is disputed, ambiguous, or would name
another page by accident. "kip|Lao kip" are a value and other right answers.
The column `article` is written before the name, and `capital` makes an entity
of its own, which knows where it is the capital and nothing else.

Sizes are rounded as they are commonly published (areas to three digits), so
pages say "about". Accents are left out. Only pages.py, questions.py and
split.py use the facts: no module or tool of an agent does.
"""

import csv
import functools
import importlib.resources
from collections.abc import Iterator, Mapping

from agentflow_jax.tasks.worldfacts import invented, relations, schema

_PACKAGE = __name__.rpartition(".")[0]
_TABLES = {
  "countries": "country",
  "us_states": "state",
  "elements": "element",
  "rivers": "river",
  "mountains": "mountain",
  "books": "book",
  "authors": "author",
  "planets": "planet",
  "moons": "moon",
}
_CAPITAL_KINDS = {"country": "capital", "state": "state_capital"}


@functools.lru_cache(maxsize=1)
def entities() -> Mapping[str, schema.Entity]:
  """All entities by name: the real ones, and behind them the invented."""
  found = dict(real_entities())
  for entity in invented.invent(real_entities()):
    found[entity.name] = entity
  return found


@functools.lru_cache(maxsize=1)
def real_entities() -> Mapping[str, schema.Entity]:
  """The entities of the tables by name, in their order.

  Raises:
    ValueError: a table has a column its kind does not know, or a name occurs
      twice.
  """
  found: dict[str, schema.Entity] = {}
  for table, kind in _TABLES.items():
    for entity in _read(table, relations.KINDS[kind]):
      if entity.name in found:
        raise ValueError(f"{table}.tsv: {entity.name} occurs twice")
      found[entity.name] = entity
  return found


def target(
  entity: schema.Entity, attribute: schema.Attribute
) -> schema.Entity | None:
  """The entity an attribute's value has a page for, if it links to one."""
  if not attribute.links_to or attribute.name not in entity.values:
    return None
  found = entities().get(entity.value(attribute.name))
  return found if found and found.kind == attribute.links_to else None


def _read(table: str, kind: schema.Kind) -> Iterator[schema.Entity]:
  path = importlib.resources.files(_PACKAGE) / "data" / f"{table}.tsv"
  rows = csv.DictReader(
    path.read_text(encoding="utf-8").splitlines(),
    delimiter="\t",
    quoting=csv.QUOTE_NONE,
    strict=True,
  )
  known = {"name", "article", "capital", *(a.name for a in kind.attributes)}
  if unknown := set(rows.fieldnames or ()) - known:
    raise ValueError(f"{table}.tsv: unknown columns {sorted(unknown)}")
  for row in rows:
    yield schema.Entity(
      kind=kind.name,
      name=row["name"],
      slug=schema.slug(row["name"]),
      article=row.get("article") or kind.article,
      values={
        a.name: tuple(row[a.name].split("|"))
        for a in kind.attributes
        if row[a.name]
      },
    )
    if row.get("capital"):
      yield schema.Entity(
        kind=_CAPITAL_KINDS[kind.name],
        name=row["capital"],
        slug=schema.slug(row["capital"]),
        article="",
        values={kind.name: (row["name"],)},
      )
