"""Every way of asking is read back as what it asks, for any name."""

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.tasks.worldfacts import (
  grammar,
  operations,
  relations,
  schema,
  templates,
)

_OPERATION = schema.Operation

_WORDS = st.text(alphabet="abcdefghijklmnoprstuvz", min_size=1, max_size=9)
_NAMES = st.lists(_WORDS.map(str.capitalize), min_size=1, max_size=3).map(
  " ".join
)


def _value_templates():
  return [
    (attribute, template)
    for attribute in relations.attributes()
    for template in attribute.questions
  ]


def _compute_templates():
  for attribute in relations.attributes():
    for operation in attribute.operations:
      wordings = operations.COMPUTE_QUESTIONS[operation]
      if operation == _OPERATION.DIFFERENCE:
        wordings = (*wordings, *attribute.comparisons)
      for template in wordings:
        yield attribute, operation, template


def _path(name, *links, attribute):
  return grammar.Path(name=name, links=links, attribute=attribute)


def test_there_are_three_ways_to_ask_for_everything():
  for attribute in relations.attributes():
    assert len(set(attribute.questions)) >= 3, attribute.name
    assert len(set(attribute.described)) in (0, 3), attribute.name
  for attribute, operation in itertools.product(
    relations.attributes(), _OPERATION
  ):
    if operation in attribute.operations:
      extra = (
        attribute.comparisons if operation == _OPERATION.DIFFERENCE else ()
      )
      assert len({*operations.COMPUTE_QUESTIONS[operation], *extra}) >= 3


@hypothesis.given(name=_NAMES, the=st.booleans())
@hypothesis.settings(max_examples=30, deadline=None)
def test_value_questions_are_read_back(name, the):
  for attribute, template in _value_templates():
    question = templates.fill(template, x=f"the {name}" if the else name)
    assert grammar.parse(question) == grammar.Query(
      paths=(_path(name, attribute=attribute.name),), operation=None
    ), question


@hypothesis.given(name=_NAMES)
@hypothesis.settings(max_examples=5, deadline=None)
def test_two_hop_questions_are_read_back(name):
  for link in relations.attributes():
    for described, hop in itertools.product(link.described, link.hops):
      target = relations.KINDS[link.links_to].attribute(hop)
      for template in target.questions:
        question = templates.fill(template, x=templates.fill(described, x=name))
        assert grammar.parse(question) == grammar.Query(
          paths=(_path(name, link.name, attribute=hop),), operation=None
        ), question


@hypothesis.given(a=_NAMES, b=_NAMES)
@hypothesis.settings(max_examples=10, deadline=None)
def test_compute_questions_are_read_back(a, b):
  for attribute, operation, template in _compute_templates():
    question = templates.fill(template, plural=attribute.plural, a=a, b=b)
    assert grammar.parse(question) == grammar.Query(
      paths=tuple(_path(n, attribute=attribute.name) for n in (a, b)),
      operation=operation,
    ), question


def test_no_two_templates_ask_the_same():
  """Kinds share a wording only for an attribute they share."""
  meanings: dict[str, set[str]] = {}
  for attribute, template in _value_templates():
    meanings.setdefault(template, set()).add(attribute.name)
  assert all(len(names) == 1 for names in meanings.values())


def test_attributes_of_one_name_are_asked_for_alike():
  by_name: dict[str, list[schema.Attribute]] = {}
  for attribute in relations.attributes():
    by_name.setdefault(attribute.name, []).append(attribute)
  shared = {name for name, same in by_name.items() if len(same) > 1}
  assert shared == {"continent", "country"}
  assert len({same.phrase for same in by_name["country"]}) == 1
  assert len({same.questions for same in by_name["continent"]}) == 1


def test_descriptions_nest():
  query = grammar.parse(
    "What is the length of the river that the river fed by the Vyatka flows "
    "into in kilometres?"
  )
  assert query is not None
  assert query.paths == (_path("Vyatka", "mouth", "mouth", attribute="length"),)
  assert str(query.paths[0]) == "the length of the mouth of the mouth of Vyatka"
  assert query.attributes == ("mouth", "length")


@pytest.mark.parametrize(
  "text",
  [
    "",
    "What is the meaning of life?",
    "What is the currency of Laos",
    "what is the currency of Laos?",
    "Tell me: What is the currency of Laos?",
    "What is the currency of Laos? And of Mali?",
    "What is the currency of La\nos?",
    "What is the sum of the currencies of Laos and Mali?",
    "What is the product of the heights in metres of Eiger and Kamet?",
    "What is the currency of " + "x" * 400 + "?",
  ],
)
def test_other_questions_are_not_understood(text):
  assert grammar.parse(text) is None


def test_hostile_questions_are_read_in_no_time():
  """Bounded length: the patterns can not be made to backtrack for long."""
  for repeated in ("the author of ", " and ", "{x}", "the country where "):
    text = f"What is the sum of the areas of {repeated * 100}?"
    assert grammar.parse(text[:400]) is None
