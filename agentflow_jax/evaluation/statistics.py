"""Statistics of trials: intervals, pass@k, maj@k, and paired comparison.

Axes: Q question, T trial. Scores are 0 or 1; a trial that is missing or was
lost is 0 before it comes here, so every denominator is fixed.
"""

import collections
import itertools
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
_CHUNK = 200  # resamples drawn at once, to bound memory
_MAX_SUBSETS = 5000


def interval(right_QT: np.ndarray, resamples: int = RESAMPLES) -> list[float]:
  """95 % percentile bootstrap of the mean, over questions and trials.

  Each resample draws questions, and for each drawn question its trials, both
  with replacement. Always the same draws.

  Example: all right gives [1.0, 1.0].
  """
  means = _resampled_means(right_QT, resamples, seed=0)
  low, high = np.quantile(means, [0.025, 0.975])
  return [float(low), float(high)]


def pass_at_k(right_QT: np.ndarray, k: int) -> float:
  """Chance that one of k trials is right (Chen et al. 2021), unbiased.

  Example: one right of two trials: pass@1 is .5, pass@2 is 1.
  """
  trials = right_QT.shape[1]
  if not 1 <= k <= trials:
    raise ValueError(f"k is {k}, there are {trials} trials")
  total = math.comb(trials, k)
  wrong_Q = trials - right_QT.sum(axis=1).astype(int)
  return float(np.mean([1 - math.comb(int(n), k) / total for n in wrong_Q]))


def majority_at_k(
  answers_QT: Sequence[Sequence[str]], right_QT: np.ndarray, k: int
) -> float:
  """Share of questions whose most frequent answer among k trials is right.

  The mean over all choices of k trials (the first 5,000 of them). Empty
  answers have no vote; of equally frequent ones the earliest counts.

  Args:
    answers_QT: in the form in which equal answers are equal texts.
    right_QT: 0 or 1.
    k: 1 to T.
  """
  shares = []
  for answers, right in zip(answers_QT, right_QT, strict=True):
    subsets = itertools.islice(
      itertools.combinations(range(len(answers)), k), _MAX_SUBSETS
    )
    shares.append(np.mean([_elected(answers, right, s) for s in subsets]))
  return float(np.mean(shares))


def compare(
  right_a_QT: np.ndarray, right_b_QT: np.ndarray, resamples: int = RESAMPLES
) -> dict[str, float | list[float]]:
  """How much better b is than a on the same questions.

  A paired bootstrap: a resample draws questions once for both, then trials
  for each.

  Returns:
    difference (b - a), its 95 % interval, and p, the two-sided share of
    resamples on the other side of zero.
  """
  if len(right_a_QT) != len(right_b_QT):
    raise ValueError("a and b have different questions")
  one = _resampled_means(right_a_QT, resamples, seed=0, trial_seed=1)
  two = _resampled_means(right_b_QT, resamples, seed=0, trial_seed=2)
  differences = two - one
  low, high = np.quantile(differences, [0.025, 0.975])
  below, above = np.mean(differences <= 0), np.mean(differences >= 0)
  return {
    "difference": float(right_b_QT.mean() - right_a_QT.mean()),
    "interval": [float(low), float(high)],
    "p": float(min(1.0, 2 * min(below, above))),
  }


def _resampled_means(
  right_QT: np.ndarray, resamples: int, *, seed: int, trial_seed: int = 0
) -> np.ndarray:
  """float64 [resamples]. Question draws depend on `seed` only."""
  questions, trials = right_QT.shape
  of_questions = np.random.default_rng(seed)
  of_trials = np.random.default_rng([seed, trial_seed])
  means = []
  for start in range(0, resamples, _CHUNK):
    count = min(_CHUNK, resamples - start)
    drawn = of_questions.integers(questions, size=(count, questions))
    which = of_trials.integers(trials, size=(count, questions, trials))
    means.append(right_QT[drawn[:, :, None], which].mean(axis=(1, 2)))
  return np.concatenate(means)


def _elected(
  answers: Sequence[str], right: np.ndarray, subset: Sequence[int]
) -> float:
  votes = collections.Counter(answers[t] for t in subset if answers[t])
  if not votes:
    return 0.0
  most = max(votes.values())
  winner = next(t for t in subset if votes[answers[t]] == most)
  return float(right[winner])
