"""exact_match and its normalisation: a hand-made table, then properties."""

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.rewards import exact_match as exact_match_lib
from agentflow_jax.rewards import normalisation

exact_match = exact_match_lib.exact_match
_settings = hypothesis.settings(deadline=None)

RIGHT = [
  ("Vientiane", ("Vientiane",)),
  ("vientiane", ("Vientiane",)),
  ("  Vientiane\n", ("Vientiane",)),
  ("Vientiane.", ("Vientiane",)),
  ('"Vientiane"', ("Vientiane",)),
  ("\u201cVientiane\u201d", ("Vientiane",)),
  ("\uff36\uff49\uff45ntiane", ("Vientiane",)),  # full-width letters
  ("The Lao kip", ("Lao kip", "kip")),
  ("kip", ("Lao kip", "kip")),
  ("Lao  \u00a0 kip", ("Lao kip",)),
  ("an apple a day", ("Apple, Day",)),
  ("S\u00e3o Tom\u00e9", ("Sa\u0303o Tome\u0301",)),  # composed, decomposed
  ("STRASSE", ("Stra\u00dfe",)),
  ("well-known", ("wellknown",)),
  ("1914\u20131918", ("1914-1918",)),
  ("1,000", ("1000",)),
  ("1,234,567", ("1234567",)),
  ("$1,000.50", ("1000.50",)),
  ("\u22125", ("-5",)),
  ("(-5)", ("-5",)),
  (".5", ("0.5",)),
  ("3.", ("3",)),
  ("A", ("A",)),
  ("the", ("The",)),
  ("+", ("+",)),
  ("U.S.", ("US",)),
  ("e'\u0301", ("\u00e9",)),  # an accent behind an apostrophe
]

WRONG = [
  ("", ("Vientiane",)),
  ("   \n\t", ("Vientiane",)),
  ("", ("",)),
  ("", ("the",)),
  ("...", ("the",)),
  ("Hanoi", ("Vientiane",)),
  ("Vientiane", ()),
  ("Vientian", ("Vientiane",)),
  ("A", ("B",)),
  ("-5", ("5",)),
  ("1.5", ("15",)),
  (".5", ("5",)),
  ("2-1", ("21",)),
  ("1/2", ("12",)),
  ("1,2", ("12",)),
  ("10:30", ("1030",)),
  # Reward hacks.
  ("Vientiane or Hanoi", ("Vientiane",)),
  ("Vientiane, Hanoi, Bangkok, Phnom Penh", ("Vientiane", "Hanoi")),
  ("Vientiane Vientiane", ("Vientiane",)),
  ("The answer is Vientiane", ("Vientiane",)),
  ("Vien\u200btiane", ("Vientiane",)),  # zero-width space
  ("Vientiane\u200b", ("Vientiane",)),
  ("\u202eenaitneiV", ("Vientiane",)),  # right-to-left override
  ("".join(chr(0xE0000 + ord(c)) for c in "Paris"), ("Paris",)),  # tags
  ("Vient\u0456ane", ("Vientiane",)),  # Cyrillic i
  ("\u200b", ("Vientiane", "")),
  (".*", ("Vientiane",)),
  ("%s", ("Vientiane",)),
  ("{answers[0]}", ("Vientiane",)),
  ("correct", ("Vientiane",)),
  ("9**9**9**9", ("Vientiane",)),
  ("Vientiane " * 2000, ("Vientiane",)),
]


@pytest.mark.parametrize(("answer", "references"), RIGHT)
def test_right(answer, references):
  assert exact_match(answer, references)


@pytest.mark.parametrize(("answer", "references"), WRONG)
def test_wrong(answer, references):
  assert not exact_match(answer, references)


def test_normalised_forms():
  assert normalisation.normalise("The  Lao Kip!") == "lao kip"
  assert normalisation.normalise("$-1,000.50 (net)") == "-1000.50 net"
  assert normalisation.normalise("covid-19") == "covid19"
  assert normalisation.normalise("wait ...5") == "wait 5"
  assert normalisation.normalise(" \t ") == ""


def test_a_huge_answer_is_not_even_read(monkeypatch):
  read = []
  monkeypatch.setattr(normalisation, "normalise", read.append)
  assert not exact_match("a" * 10_000_000, ("a",))
  assert not read
  exact_match("a", ("b",))
  assert read == ["a", "b"]


@_settings
@hypothesis.given(st.text())
def test_a_text_matches_itself_unless_blank(text):
  assert exact_match(text, (text,)) == bool(text.strip())


@_settings
@hypothesis.given(st.text())
def test_normalising_twice_changes_nothing(text):
  once = normalisation.normalise(text)
  assert normalisation.normalise(once) == once


@_settings
@hypothesis.given(
  st.lists(st.sampled_from(["Laos", "kip", "1975", "Mekong"]), min_size=1),
  st.sampled_from(["{}", " {} ", "the {}", "{}.", "({})", '"{}"', "{}!"]),
)
def test_dress_does_not_matter(words, dress):
  text = " ".join(words)
  assert exact_match(dress.format(text.upper()), ("no", text))


@_settings
@hypothesis.given(
  st.lists(
    st.text("bcdefgh", min_size=1, max_size=6),
    min_size=2,
    max_size=8,
    unique=True,
  ),
  st.sampled_from([" ", ", ", " or ", "/", "\n", "; "]),
)
def test_listing_every_option_is_wrong(options, separator):
  """Even if every single option is a reference."""
  assert not exact_match(separator.join(options), options[:1])


@_settings
@hypothesis.given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_different_integers_never_match(one, other):
  assert exact_match(str(one), (str(other),)) == (one == other)
