"""The golden set: every hand-checked (question, gold, answer, verdict) row."""

import gzip
import json
import pathlib

import pytest

from agentflow_jax.core import task as task_lib
from agentflow_jax.rewards import game24, registry

_FILES = sorted((pathlib.Path(__file__).parent / "golden").glob("*.jsonl"))
_FIELDS = {"scorer", "question", "gold", "answer", "right", "options", "note"}


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
  return registry.SCORERS[row["scorer"]](row["answer"], task) >= 1


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_every_verdict_is_the_hand_checked_one(path):
  wrong = [
    (number, row["gold"], row["answer"], row["right"])
    for number, row in enumerate(_rows(path), start=1)
    if _score(row) != row["right"]
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
