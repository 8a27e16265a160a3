"""The pages in the real index: what one search finds, and what it can not."""

import pytest

from agentflow_jax.tasks.worldfacts import (
  facts,
  grammar,
  questions,
  relations,
  split,
)

_PHRASES = sorted(set(relations.PHRASES.values()))


def _best(index, query):
  return index.search(query, 1)[0].passage.title


def test_a_name_and_one_of_its_attributes_find_its_page(index):
  for entity in facts.entities().values():
    for attribute in relations.KINDS[entity.kind].attributes:
      query = f"{entity.name} {attribute.phrase}"
      assert _best(index, query) == entity.name, query


def test_a_name_and_anything_hardly_ever_miss(index):
  """A planner that asks for the wrong attribute still finds the page."""
  missed = [
    (name, phrase)
    for name in facts.entities()
    for phrase in _PHRASES
    if _best(index, f"{name} {phrase}") != name
  ]
  assert len(missed) <= 5, missed


def _links():
  for entity in facts.entities().values():
    for link in relations.KINDS[entity.kind].attributes:
      target = facts.target(entity, link)
      if target:
        yield entity, target


def test_the_first_name_with_any_attribute_is_no_shortcut(index):
  """ "Vientiane currency" must not find the page of Laos."""
  checked = 0
  for entity, target in _links():
    for phrase in _PHRASES:
      assert _best(index, f"{entity.name} {phrase}") != target.name
      checked += 1
  assert checked > 5000


@pytest.mark.parametrize("split_name", split.SPLITS)
def test_the_whole_question_is_no_shortcut(index, split_name):
  """For every two-hop question that could be asked, not only the chosen."""
  for candidate in questions.candidates(split_name, questions.TWO_HOP):
    task = candidate.make()
    query = grammar.parse(task.question)
    assert query is not None
    (path,) = query.paths
    second_page = facts.entities()[path.name].value(path.links[0])
    assert second_page in facts.entities()
    assert _best(index, task.question) != second_page, task.question
