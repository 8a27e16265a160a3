"""Every benchmark file at hand: oracle 100 %, empty 0 %, random chance."""

import asyncio
import pathlib
import re

import pytest

from agentflow_jax.evaluation import baselines, benchmark_runner
from agentflow_jax.rewards import registry, rule_reward
from agentflow_jax.tasks import benchmarks

_BENCH = pathlib.Path(__file__).parents[2] / "../shared/data/agentflow_bench"
_NAMES = [
  *("bamboogle", "2wiki", "hotpotqa", "musique"),
  *("aime24", "amc23", "gameof24", "medqa"),
]
pytestmark = pytest.mark.skipif(
  not _BENCH.exists(), reason="../shared/data/agentflow_bench is not there"
)


def _evaluate(kind, tasks, directory, trials=1):
  return asyncio.run(
    benchmark_runner.run(
      tasks,
      baselines.run_one(kind, tasks),
      rule_reward.RuleReward({task.scorer for task in tasks}),
      directory,
      benchmark_runner.Plan(settings={"solver": kind}, trials=trials),
    )
  )


@pytest.mark.parametrize("name", _NAMES)
def test_the_oracle_is_perfect_and_silence_is_worthless(name, tmp_path):
  tasks = benchmarks.load(name, _BENCH)
  assert _evaluate("oracle", tasks, tmp_path / "o")["accuracy"] == 1.0
  found = _evaluate("empty", tasks, tmp_path / "e")
  assert (found["accuracy"], found["missing"]) == (0.0, 0)


# Whole answers of another question: the chance is the share of pairs of
# questions with the same answer.
@pytest.mark.parametrize("name", _NAMES)
def test_random_answers_score_chance(name, tmp_path):
  tasks = benchmarks.load(name, _BENCH)
  chances = [_chance(task, tasks) for task in tasks]
  trials = 3
  found = _evaluate("random", tasks, tmp_path, trials=trials)
  expected = sum(chances) / len(tasks)
  deviation = (sum(p * (1 - p) for p in chances) / trials) ** 0.5 / len(tasks)
  assert abs(found["accuracy"] - expected) <= 4 * deviation + 1e-9
  if name == "medqa":
    assert expected == 0.25


def _chance(task, tasks):
  score = registry.SCORERS[task.scorer]
  if task.options:
    letters = [chr(ord("A") + n) for n in range(len(task.options))]
    return sum(score(letter, task) for letter in letters) / len(letters)
  return sum(score(other.answers[0], task) for other in tasks) / len(tasks)


def test_medqa_rows_keep_their_own_gold():
  """D5: the pids of the file occur twice; every answer is an own option."""
  tasks = benchmarks.load("medqa", _BENCH)
  assert len({task.id for task in tasks}) == len(tasks) == 205
  for task in tasks:
    letter, text = task.answers
    assert task.options[ord(letter) - ord("A")] == text
    assert f"{letter}. {text}" in task.question


def test_questions_lose_the_format_sentence_only():
  for name in _NAMES:
    for task in benchmarks.load(name, _BENCH):
      assert not re.search("</?answer>", task.question)
      assert task.question.strip() == task.question != ""
