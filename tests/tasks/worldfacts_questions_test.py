"""The questions: right answers, held-out split, sizes, stable ids."""

import collections
import re

import pytest

from agentflow_jax.tasks.worldfacts import (
  facts,
  grammar,
  names,
  questions,
  relations,
  schema,
  split,
)


def _follow(path):
  """The gold value of a path, straight from the tables."""
  name = path.name
  if path.attribute == grammar.NUMBER:
    return name
  for attribute in (*path.links, path.attribute):
    name = facts.entities()[name].value(attribute)
  return name


def _titles_on_path(task):
  """Every page a question names or leads over."""
  query = grammar.parse(task.question)
  assert query is not None
  titles = set(names.known_names().find(task.question))
  for path in query.paths:
    name = path.name
    titles.add(name)
    for link in path.links:
      name = facts.entities()[name].value(link)
      titles.add(name)
  return titles


@pytest.mark.parametrize("split_name", split.SPLITS)
def test_answers_are_those_of_the_tables(split_name):
  """Read from the question's text alone, and computed apart."""
  for task in questions.tasks(split_name):
    query = grammar.parse(task.question)
    assert query is not None, task.question
    values = [_follow(path) for path in query.paths]
    if query.operation is None:
      assert task.answers[0] == values[0], task
      continue
    low, high = sorted(map(int, values))
    expected = {
      schema.Operation.SUM: low + high,
      schema.Operation.DIFFERENCE: high - low,
      schema.Operation.PRODUCT: low * high,
    }[query.operation]
    assert task.answers == (str(expected),), task


def test_the_family_is_what_the_question_needs():
  for task in questions.tasks(split.HELD_OUT):
    query = grammar.parse(task.question)
    assert query is not None
    family = questions.COMPUTE
    if query.operation is None:
      family = questions.TWO_HOP if query.paths[0].links else questions.ONE_HOP
    assert task.family == family
    assert task.id.startswith(f"{family}/")


@pytest.mark.parametrize("split_name", split.SPLITS)
def test_names_with_and_are_not_computed_with(split_name):
  """ "Of War and Peace and Emma" could be split in two places."""
  asked = {
    part
    for candidate in questions.candidates(split_name, questions.COMPUTE)
    for part in candidate.id.split("/")[3:]
  }
  assert len(asked) > 100
  assert not [part for part in asked if "_and_" in part]


def test_comparisons_name_the_larger_first():
  seen = 0
  for task in questions.tasks(split.TRAIN):
    match = re.fullmatch(
      r"How many metres higher is (.+) than (.+)\?", task.question
    )
    if match:
      higher, lower = (facts.entities()[name] for name in match.groups())
      assert higher.number("height") > lower.number("height")
      seen += 1
  assert seen >= 3


@pytest.mark.parametrize("split_name", split.SPLITS)
def test_sizes(split_name):
  count = collections.Counter(t.family for t in questions.tasks(split_name))
  assert count == questions.COUNTS[split_name]
  ids = [task.id for task in questions.tasks(split_name)]
  assert len(set(ids)) == len(ids)
  texts = [task.question for task in questions.tasks(split_name)]
  assert len(set(texts)) == len(texts)


def test_held_out_questions_are_in_equal_thirds():
  counts = questions.COUNTS["held_out"]
  assert counts == {"one_hop": 100, "two_hop": 100, "compute": 100}


@pytest.mark.parametrize("split_name", split.SPLITS)
def test_operations_and_relations_are_balanced(split_name):
  tasks = questions.tasks(split_name)
  count = questions.COUNTS[split_name][questions.ONE_HOP]
  operations = collections.Counter(
    t.id.split("/")[1] for t in tasks if t.family == questions.COMPUTE
  )
  assert len(operations) == 3
  assert max(operations.values()) - min(operations.values()) <= 1
  one_hop = collections.Counter(
    t.id.split("/")[2] for t in tasks if t.family == questions.ONE_HOP
  )
  wanted = {
    name
    for kind in relations.KINDS.values()
    for a in kind.attributes
    for name in [a.name]
  }
  assert one_hop.keys() == wanted
  assert max(one_hop.values()) <= count / 8


def test_training_asks_for_every_second_hop_about_as_often():
  """Else what there is little of is rare in training and not in the test."""
  found = questions.candidates(split.TRAIN, questions.TWO_HOP)
  count = questions.COUNTS[split.TRAIN][questions.TWO_HOP]
  groups = collections.Counter(
    candidate.group for candidate in questions.choose(found, count)
  )
  assert groups.keys() == {candidate.group for candidate in found}
  assert min(groups.values()) >= 0.8 * max(groups.values())


def test_every_wording_is_used():
  texts = [task.question for task in questions.tasks(split.TRAIN)]
  for attribute in relations.attributes():
    for template in (*attribute.questions, *attribute.comparisons):
      wording = re.compile(re.sub(r"\\\{\w\\\}", ".+", re.escape(template)))
      if attribute.name not in ("position", "diameter"):  # seven planets
        assert any(map(wording.fullmatch, texts)), template


def test_no_held_out_title_is_in_a_train_question():
  """By the grammar's path, by known names, and by plain text search."""
  train = questions.tasks(split.TRAIN)
  on_train_paths = set().union(*map(_titles_on_path, train))
  held_out = set().union(*map(_titles_on_path, questions.tasks(split.HELD_OUT)))
  assert len(on_train_paths) > 400 and len(held_out) > 200
  assert not on_train_paths & held_out
  # Not by the matcher that split.py itself relies on.
  train_words = "\n".join(task.question for task in train)
  for title in held_out:
    pattern = rf"(?<!\w){re.escape(title)}(?!\w)"
    assert not re.search(pattern, train_words), title


def test_no_train_answer_names_a_held_out_page():
  held_out = {entity.name for entity in split.members(split.HELD_OUT)}
  for task in questions.tasks(split.TRAIN):
    assert not held_out & set(task.answers), task


def test_splits_share_no_cluster_and_lose_nobody():
  train = {entity.name for entity in split.members(split.TRAIN)}
  held_out = {entity.name for entity in split.members(split.HELD_OUT)}
  assert not train & held_out
  assert train | held_out == set(facts.entities())
  for cluster in split.clusters():
    assert set(cluster) <= train or set(cluster) <= held_out
  clusters = {name: cluster for cluster in split.clusters() for name in cluster}
  assert clusters["Virginia"] is clusters["West Virginia"]
  assert {"Kenya", "Nairobi", "Mount Longonot"} == set(clusters["Kenya"])
  assert {"Volga", "Kama", "Vyatka", "Oka", "Sura"} == set(clusters["Volga"])


def test_about_thirty_percent_of_every_kind_is_held_out():
  for kind in relations.KINDS:
    members = {
      name: sum(
        entity.kind == kind and not entity.is_invented
        for entity in split.members(name)
      )
      for name in split.SPLITS
    }
    share = members[split.HELD_OUT] / sum(members.values())
    # Planets and moons come in few clusters.
    slack = 0.3 if kind in ("planet", "moon") else 0.05
    assert abs(share - split.HELD_OUT_SHARE) <= slack, (kind, members)


def test_an_unknown_split_is_refused():
  with pytest.raises(ValueError, match="no split 'test'"):
    split.members("test")


def test_ids_and_wordings_are_stable():
  """Ids seed the sampler, so they must not depend on order or on the host."""
  tasks = {
    task.id: task for name in split.SPLITS for task in questions.tasks(name)
  }
  assert [task.id for task in questions.tasks(split.HELD_OUT)[:3]] == [
    "one_hop/patrick_suskind/birth",
    "two_hop/brave_new_world/author/birth",
    "compute/difference/birth/boris_pasternak/salman_rushdie",
  ]
  task = tasks["two_hop/brave_new_world/author/birth"]
  assert task.question == "When was the writer of Brave New World born?"
  assert task.answers == ("1894",)
  assert task.scorer == "numeric_match"
  assert tasks["one_hop/iran/currency"].answers == ("Iranian rial", "rial")
  assert tasks["one_hop/iran/currency"].scorer == "exact_match"
