"""The golden set: every hand-checked (question, gold, answer, verdict) row."""

import collections
import gzip
import itertools
import json
import pathlib

import pytest

from agentflow_jax.core import task as task_lib
from agentflow_jax.rewards import game24, qa_match, registry

_FILES = sorted((pathlib.Path(__file__).parent / "golden").glob("*.jsonl"))
# "score" where a scorer gives parts; "right" is that it is 1.
_FIELDS = {"scorer", "question", "gold", "answer", "right", "score"}
_FIELDS |= {"options", "note"}
# What every rule has at least, so that none is checked by a handful.
_MIN_ROWS = 20


def _rows(path):
  with path.open(encoding="utf-8") as file:
    return [json.loads(line) for line in file]


def _score(row):
  task = task_lib.Task(
    id="golden",
    question=row["question"],
    answers=tuple(row["gold"]),
    data_source="golden",
    scorer=row["scorer"],
    options=tuple(row.get("options", ())),
  )
  return registry.SCORERS[row["scorer"]](row["answer"], task)


def _is_as_checked(row):
  score = _score(row)
  wanted = row.get("score", float(row["right"]))
  return (score >= 1) == row["right"] and score == pytest.approx(
    wanted, abs=1e-4
  )


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_every_verdict_is_the_hand_checked_one(path):
  wrong = [
    (number, row["gold"], row["answer"], row["right"])
    for number, row in enumerate(_rows(path), start=1)
    if not _is_as_checked(row)
  ]
  assert not wrong


def test_the_set_is_large_balanced_and_without_repeats():
  rows = [row for path in _FILES for row in _rows(path)]
  assert len(rows) >= 300
  assert all(set(row) <= _FIELDS for row in rows)
  keys = {
    json.dumps([row["scorer"], row["question"], row["gold"], row["answer"]])
    for row in rows
  }
  assert len(keys) == len(rows)
  share = sum(row["right"] for row in rows) / len(rows)
  assert 0.3 < share < 0.6
  counts = collections.Counter(row["scorer"] for row in rows)
  assert set(counts) == set(registry.SCORERS)
  assert min(counts.values()) >= _MIN_ROWS


def test_listing_every_option_earns_nothing():
  """By every rule for answers in words, in whatever order and layout."""
  capitals = ("Hanoi", "Bangkok", "Vientiane", "Jakarta")
  layouts = (", ", " ", "\n", "\n- ", "; ", " and ", " & ", " / ", ". ", "\t")
  for scorer in ("exact_match", "qa_match", "cover_em", "gaia"):
    for order in itertools.permutations(capitals):
      for layout in layouts:
        row = {
          "scorer": scorer,
          "question": "What is the capital of Laos?",
          "gold": ["Vientiane"],
          "answer": layout.join(order),
        }
        assert _score(row) == 0, row


def test_the_published_cover_em_is_reported_and_not_trained_on():
  assert qa_match.cover_em("Hanoi, Bangkok, Vientiane", ("Vientiane",))
  assert not qa_match.cover_em("Hanoi, Vientianes", ("Vientiane",))
  assert qa_match.cover_em("word " * 90 + "or Vientiane", ("Vientiane",))


_BENCH = pathlib.Path(__file__).parents[2] / "../shared/data/agentflow_bench"


@pytest.mark.skipif(
  not _BENCH.exists(), reason="../shared/data/agentflow_bench is not there"
)
def test_every_listed_solution_of_the_game_of_24_is_right():
  with gzip.open(_BENCH / "gameof24.jsonl.gz", "rt", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
  assert len(rows) == 211
  for row in rows:
    for solution in row["answer"]:
      assert game24.game24(solution, row["answer"][:1]), row
      assert sorted(game24.numbers_of(solution)) == row["question"]
      # The same expression with one number changed is not.
      other = solution.replace(str(row["question"][0]), "14", 1)
      assert not game24.game24(other, row["answer"]), row
