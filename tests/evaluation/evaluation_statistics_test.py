"""Intervals, pass@k, maj@k and the paired comparison, against known values."""

import itertools

import numpy as np
import pytest

from agentflow_jax.evaluation import statistics


def test_pass_at_k_is_the_mean_over_all_choices():
  right_QT = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], float)

  def choices(k):
    return itertools.combinations(range(4), k)

  for k in range(1, 5):
    by_hand = np.mean(
      [
        np.mean(
          [row[list(s)].any() for s in itertools.combinations(range(4), k)]
        )
        for row in right_QT
      ]
    )
    assert statistics.pass_at_k(right_QT, k) == pytest.approx(by_hand)
  with pytest.raises(ValueError, match="k is 5"):
    statistics.pass_at_k(right_QT, 5)


def test_the_majority_decides_and_silence_has_no_vote():
  answers = [["a", "b", "b"], ["", "", "c"], ["x", "y", "z"], ["", "", ""]]
  right_QT = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]], float)
  # b wins and is wrong; c is the only vote; a tie goes to the earliest.
  assert statistics.majority_at_k(answers, right_QT, 3) == 0.5
  assert statistics.majority_at_k(answers, right_QT, 1) == pytest.approx(
    right_QT.mean()
  )


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
  drawn = np.random.default_rng(1)
  covered = 0
  for _ in range(100):
    right_QT = (drawn.random((60, 1)) < 0.3).astype(float)
    low, high = statistics.interval(right_QT, resamples=400)
    covered += low <= 0.3 <= high
  assert covered >= 86
  assert statistics.interval(np.ones((5, 2))) == [1.0, 1.0]


def test_trials_widen_nothing_that_agrees():
  one = (np.arange(50) % 2).astype(float)[:, None]
  same = np.repeat(one, 4, axis=1)
  assert statistics.interval(same) == statistics.interval(one)


def test_paired_questions_are_compared_with_each_other():
  drawn = np.random.default_rng(2)
  hard_Q = drawn.random(200) < 0.5
  one = np.where(hard_Q, 0.0, 1.0)[:, None]
  other = one.copy()
  other[hard_Q.nonzero()[0][:20]] = 1.0  # better on 20, worse on none
  found = statistics.compare(one, other, resamples=2000)
  assert found["difference"] == pytest.approx(0.1)
  low, high = found["interval"]
  assert 0.05 < low < 0.1 < high < 0.15
  assert found["p"] == 0.0
  same = statistics.compare(one, one, resamples=500)
  assert (same["difference"], same["interval"]) == (0.0, [0.0, 0.0])
  assert same["p"] == 1.0
