"""The invented part of the world: a copy of the real one, for training."""

import collections

from agentflow_jax.tasks.worldfacts import (
  facts,
  invented,
  questions,
  relations,
  split,
  stems,
)


def _invented():
  return [e for e in facts.entities().values() if e.is_invented]


def test_every_real_thing_has_its_copy():
  real = collections.Counter(e.kind for e in facts.real_entities().values())
  copies = collections.Counter(e.kind for e in _invented())
  assert copies == real


def test_it_is_the_same_every_time():
  again = list(invented.invent(facts.real_entities()))
  assert again == _invented()


def test_links_lead_to_invented_pages():
  for entity in _invented():
    for attribute in relations.KINDS[entity.kind].attributes:
      target = facts.target(entity, attribute)
      assert target is None or target.is_invented, entity
  linked = [e for e in _invented() if e.kind == "capital"]
  assert all(facts.entities()[e.value("country")].is_invented for e in linked)


def test_values_are_those_of_real_things_of_the_kind():
  real = {}
  for entity in facts.real_entities().values():
    for attribute, value in entity.values.items():
      real.setdefault((entity.kind, attribute), set()).add(value)
  for entity in _invented():
    for attribute in relations.KINDS[entity.kind].attributes:
      if attribute.name in entity.values and not attribute.links_to:
        value = entity.values[attribute.name]
        assert value in real[entity.kind, attribute.name]


def test_no_new_word_of_a_name_is_anywhere_else():
  """Small and common ones are: "Mount Bogoos", "Lata of Savoos"."""
  kept = stems.NameMaker(facts.real_entities()).common
  seen = {
    word.lower()
    for entity in facts.real_entities().values()
    for text in (entity.name, *(v for vs in entity.values.values() for v in vs))
    for word in text.split()
  }
  for entity in _invented():
    words = entity.name.split()
    new = {w.lower() for w in words if not w.islower() and w not in kept}
    assert new
    assert not seen & new, entity
    seen |= new


def test_they_are_for_training_only():
  assert not any(e.is_invented for e in split.members(split.HELD_OUT))
  asked = sum(
    any(e.slug in task.id for e in _invented())
    for task in questions.tasks(split.TRAIN)[:200]
  )
  assert 80 < asked < 160
