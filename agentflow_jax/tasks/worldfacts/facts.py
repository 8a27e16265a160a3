"""The facts: data/*.tsv read into entities, once per process.

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
import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator, Mapping

from agentflow_jax.tasks.worldfacts import relations, schema

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


@functools.lru_cache(maxsize=1)
def entities() -> Mapping[str, Entity]:
  """All entities by name, in the order of the tables.

  Raises:
    ValueError: a table has a column its kind does not know, or a name occurs
      twice.
  """
  found: dict[str, Entity] = {}
  for table, kind in _TABLES.items():
    for entity in _read(table, relations.KINDS[kind]):
      if entity.name in found:
        raise ValueError(f"{table}.tsv: {entity.name} occurs twice")
      found[entity.name] = entity
  return found


def target(entity: Entity, attribute: schema.Attribute) -> Entity | None:
  """The entity an attribute's value has a page for, if it links to one."""
  if not attribute.links_to or attribute.name not in entity.values:
    return None
  found = entities().get(entity.value(attribute.name))
  return found if found and found.kind == attribute.links_to else None


def _read(table: str, kind: schema.Kind) -> Iterator[Entity]:
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
    yield Entity(
      kind=kind.name,
      name=row["name"],
      slug=_slug(row["name"]),
      article=row.get("article") or kind.article,
      values={
        a.name: tuple(row[a.name].split("|"))
        for a in kind.attributes
        if row[a.name]
      },
    )
    if row.get("capital"):
      yield Entity(
        kind=_CAPITAL_KINDS[kind.name],
        name=row["capital"],
        slug=_slug(row["capital"]),
        article="",
        values={kind.name: (row["name"],)},
      )


def _slug(name: str) -> str:
  return "".join(c.lower() if c.isalnum() else "_" for c in name)
