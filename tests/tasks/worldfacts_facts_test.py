"""The tables and pages: complete, clean, and true where a rule can tell."""

import re

import pytest

from agentflow_jax.tasks.worldfacts import facts, names, pages, relations

# Written down apart from the tables, by hand.
_SPOT_CHECKS = [
  ("Laos", "currency", "kip"),
  ("Laos", "continent", "Asia"),
  ("Brazil", "language", "Portuguese"),
  ("Japan", "currency", "yen"),
  ("Iceland", "area", "103000"),
  ("Suriname", "language", "Dutch"),
  ("Vientiane", "country", "Laos"),
  ("Canberra", "country", "Australia"),
  ("Ottawa", "country", "Canada"),
  ("Ankara", "country", "Turkey"),
  ("Brasilia", "country", "Brazil"),
  ("Astana", "country", "Kazakhstan"),
  ("Sacramento", "state", "California"),
  ("Albany", "state", "New York"),
  ("Juneau", "state", "Alaska"),
  ("Texas", "nickname", "Lone Star State"),
  ("Hawaii", "admission", "1959"),
  ("Delaware", "admission", "1787"),
  ("Tungsten", "symbol", "W"),
  ("Tin", "number", "50"),
  ("Gold", "number", "79"),
  ("Oganesson", "number", "118"),
  ("Krypton", "category", "noble gas"),
  ("Uranium", "category", "actinide"),
  ("Danube", "mouth", "Black Sea"),
  ("Volga", "mouth", "Caspian Sea"),
  ("Kama", "mouth", "Volga"),
  ("Kilimanjaro", "height", "5895"),
  ("Kilimanjaro", "country", "Tanzania"),
  ("Aconcagua", "range", "Andes"),
  ("Mount Fuji", "height", "3776"),
  ("Dune", "author", "Frank Herbert"),
  ("Dune", "published", "1965"),
  ("Ulysses", "author", "James Joyce"),
  ("Jane Austen", "birth", "1775"),
  ("Voltaire", "death", "1778"),
  ("Saturn", "position", "6"),
  ("Earth", "diameter", "12756"),
  ("Titan", "planet", "Saturn"),
  ("Io", "discovered", "1610"),
]

# At least; a row that is lost, or a column that is not read, shows here.
_COUNTS = {
  "country": 160,
  "capital": 140,
  "state": 50,
  "state_capital": 49,
  "element": 118,
  "river": 100,
  "mountain": 110,
  "book": 130,
  "author": 95,
  "planet": 7,
  "moon": 20,
}


def _values(kind, attribute):
  return {
    entity.name: entity.value(attribute)
    for entity in facts.real_entities().values()
    if entity.kind == kind and attribute in entity.values
  }


@pytest.mark.parametrize(("name", "attribute", "value"), _SPOT_CHECKS)
def test_known_facts(name, attribute, value):
  assert facts.real_entities()[name].value(attribute) == value


def test_every_kind_has_its_entities():
  counts = dict.fromkeys(relations.KINDS, 0)
  for entity in facts.real_entities().values():
    counts[entity.kind] += 1
  assert all(counts[kind] >= least for kind, least in _COUNTS.items()), counts
  assert counts.keys() == _COUNTS.keys()


def test_elements_are_numbered_without_a_gap():
  numbers = sorted(map(int, _values("element", "number").values()))
  assert numbers == list(range(1, 119))
  symbols = list(_values("element", "symbol").values())
  assert len(set(symbols)) == 118
  assert all(re.fullmatch("[A-Z][a-z]?", symbol) for symbol in symbols)


def test_links_lead_to_pages():
  """Only rivers may end elsewhere, in seas and lakes."""
  for entity in facts.entities().values():
    for attribute in relations.KINDS[entity.kind].attributes:
      if attribute.links_to and attribute.name in entity.values:
        target = facts.target(entity, attribute)
        assert target or attribute.name == "mouth", entity


@pytest.mark.parametrize(
  ("kind", "attribute", "low", "high"),
  [
    ("country", "area", 20, 20_000_000),
    ("state", "admission", 1787, 1959),
    ("river", "length", 50, 7000),
    ("mountain", "height", 800, 8849),
    ("book", "published", 1750, 2025),
    ("author", "birth", 1600, 2000),
    ("author", "death", 1700, 2025),
    ("planet", "diameter", 4000, 150_000),
    ("moon", "diameter", 10, 5300),
    ("moon", "discovered", 1610, 2000),
  ],
)
def test_numbers_are_plausible(kind, attribute, low, high):
  values = _values(kind, attribute)
  assert values
  for name, value in values.items():
    assert re.fullmatch("[1-9][0-9]*", value), (name, value)
    assert low <= int(value) <= high, (name, value)


def test_areas_have_three_digits():
  for name, value in _values("country", "area").items():
    assert len(value.rstrip("0")) <= 3, name


def test_dates_of_a_life_are_in_order():
  for entity in facts.real_entities().values():
    if entity.kind == "author" and "death" in entity.values:
      age = entity.number("death") - entity.number("birth")
      assert 28 <= age <= 100, entity
    if entity.kind == "book":
      author = facts.entities()[entity.value("author")]
      age = entity.number("published") - author.number("birth")
      assert 15 <= age <= 90, entity
      if "death" in author.values:
        late = entity.number("published") - author.number("death")
        # Only Kafka's novels appeared after his death.
        assert late <= 0 or author.name == "Franz Kafka", entity


def test_every_author_has_a_book():
  written = set(_values("book", "author").values())
  assert written == set(_values("author", "birth"))


def test_names_and_values_are_plain():
  """ASCII, no full stop: sentences are split at full stops."""
  for entity in facts.entities().values():
    values = [v for same in entity.values.values() for v in same]
    for text in (entity.name, *values):
      assert text.isascii() and text == text.strip() and text, entity
      assert not set(text) & set('.:|,"\t[]'), entity
    assert 1 <= len(entity.name.split()) <= 5, entity


def test_names_are_unique_in_any_case():
  lower = [name.lower() for name in facts.entities()]
  assert len(set(lower)) == len(lower)
  slugs = [entity.slug for entity in facts.entities().values()]
  assert len(set(slugs)) == len(slugs)


def test_no_name_is_a_word_of_another():
  """But for the two Virginias, which split.py keeps together."""
  found = {
    (inner, name)
    for name in facts.entities()
    for inner in facts.entities()
    if inner != name and f" {inner} " in f" {name.replace('-', ' ')} "
  }
  assert found == {("Virginia", "West Virginia")}


def test_pages_read_like_an_encyclopedia():
  text = {title: text for _, title, text in pages.passages()}
  assert text["Laos"] == (
    "Laos is a country in Asia. Its currency is the kip. Its official "
    "language is Lao. Its area is about 237000 square kilometres."
  )
  assert text["Kazakhstan"].startswith("Kazakhstan is a country. Its currency")
  assert text["Manila"] == (
    "Manila is the national capital of the Philippines."
  )
  assert text["Denali"].startswith("Denali is a mountain in the United States.")
  assert text["Kama"] == (
    "The Kama is a river in Europe. Its length is about 1805 kilometres. It "
    "flows into the Volga."
  )
  assert text["Voltaire"] == (
    "The writer Voltaire was born in 1694. The writer died in 1778."
  )


def test_pages_are_short():
  for _, title, text in pages.passages():
    assert 4 <= len(text.split()) <= 40, title
    assert text.endswith("."), title
    assert "{" not in text, title


def test_page_ids_and_titles_are_unique():
  ids, titles, _ = zip(*pages.passages(), strict=True)
  assert len(set(ids)) == len(ids)
  assert pages.titles() == titles


def test_pages_mention_what_they_link_to_and_no_other_page():
  """A stray name would be a shortcut, or a wrong turn nobody intended."""
  for _, title, text in pages.passages():
    entity = facts.entities()[title]
    kind = relations.KINDS[entity.kind]
    linked = {
      target.name
      for attribute in kind.attributes
      if (target := facts.target(entity, attribute))
    }
    assert set(names.known_names().find(text)) == {title} | linked


def test_a_page_states_nothing_of_the_page_it_links_to():
  for _, title, text in pages.passages():
    entity = facts.entities()[title]
    for link in relations.KINDS[entity.kind].attributes:
      target = facts.target(entity, link)
      for hop in link.hops:
        if target and hop in target.values:
          sentence = pages.page_text(target)
          stated = [s for s in sentence.split(". ") if target.value(hop) in s]
          assert stated and not any(s in text for s in stated), title
