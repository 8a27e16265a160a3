"""Made-up names: parts of real ones, and never a real one."""

import random

import pytest

from agentflow_jax.tasks.worldfacts import facts, names, split, stems


@pytest.fixture(scope="module")
def maker():
  return stems.NameMaker(facts.real_entities())


def test_words_are_cut_before_their_last_letters():
  maker = stems.NameMaker(["Bogota", "Tin", "On the Road", "Pi", "d'Or"])
  assert maker.stems == ("Bogo", "Ro", "T")
  assert maker.endings == ("ad", "in", "ta")
  words = {maker.word(random.Random(seed)) for seed in range(99)}
  assert words == {"Bogoad", "Bogoin", "Roin", "Rota", "Tad", "Tta"}


def test_every_stem_takes_part_the_held_out_ones_too(maker):
  rng = random.Random(0)
  words = {maker.word(rng) for _ in range(20_000)}
  used = {word[: -stems.ENDING_LETTERS] for word in words}
  assert used == set(maker.stems)
  held_out = {
    word[: -stems.ENDING_LETTERS]
    for entity in split.members(split.HELD_OUT)
    for word in entity.name.split()
    if len(word) > 3 and word.isalpha() and word.istitle()
  }
  assert len(held_out) > 300
  assert held_out <= used


def test_no_real_name_is_made_up(maker):
  rng = random.Random(0)
  finder = names.NameFinder(tuple(facts.real_entities()))
  made = [maker.name(rng, old) for old in [*facts.entities()] * 4]
  assert not [name for name in made if finder.find(name)]


def test_a_name_looks_like_the_old_one(maker):
  rng = random.Random(0)
  assert {"Mount", "The", "New"} <= maker.common
  assert "Guinea" not in maker.common  # a country
  for old, kept in (
    ("Mount Ossa", ["Mount", None]),
    ("Pride and Prejudice", [None, "and", None]),
    ("The Castle", ["The", None]),
    ("Papua New Guinea", [None, "New", None]),
    ("Laos", [None]),
    ("New", [None]),
  ):
    words = maker.name(rng, old).split()
    pairs = list(zip(words, kept, strict=True))
    assert all(word == same for word, same in pairs if same), words
    assert not [w for w, same in pairs if not same and w in old.split()]
