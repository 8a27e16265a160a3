"""The best passages of a BM25 index without scoring all of them (MaxScore).

Flow: terms, those that can add most first -> add their postings up -> as soon
as a passage without any of these terms can no longer reach the k-th best score,
stop -> score the few passages that still can, completely.

Common words ("the") have the longest postings and add least, so they are
mostly looked up for a few candidates. The last step adds in the order the plain
search adds, so scores are the same bits (Turtle and Flood 1995 for the idea).

Axes as in tools/bm25_index.py: N passage, V term, P posting; C candidate, W
word of the query, K result.
"""

import collections
from collections.abc import Sequence

import numpy as np

# Bounds are sums in another order than the scores: leave them some room.
ROOM = 1e-4


def best(
  word_W: np.ndarray,
  posting_starts_V: np.ndarray,
  postings_P: np.ndarray,
  scores_P: np.ndarray,
  most_V: np.ndarray,
  scratch_N: np.ndarray,
  top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
  """The best passages, best first, and their scores (float32).

  Args:
    word_W: the terms of a query, at least one; one that occurs twice counts
      twice. Their order changes no bit.
    posting_starts_V: where each term's postings start, and the end.
    postings_P: passages, ascending within a term.
    scores_P: what a term adds to a passage, more than 0.
    most_V: the largest of a term's scores.
    scratch_N: float32 zeros; they are zeros again afterwards.
    top_k: results at most, from 1.
  """
  # Terms are added in one fixed order: sums are bit-equal.
  terms = sorted(collections.Counter(word_W.tolist()).items())
  arrays = (posting_starts_V, postings_P, scores_P)
  found_C = _candidates(terms, *arrays, most_V, scratch_N, top_k)
  total_C = _scores(found_C, terms, *arrays)
  # The candidates ascend, so a stable sort leaves ties in their order.
  rank_K = np.argsort(-total_C, kind="stable")[:top_k]
  return found_C[rank_K], total_C[rank_K]


def _candidates(
  terms: Sequence[tuple[int, int]],
  posting_starts_V: np.ndarray,
  postings_P: np.ndarray,
  scores_P: np.ndarray,
  most_V: np.ndarray,
  scratch_N: np.ndarray,
  top_k: int,
) -> np.ndarray:
  """Passages, ascending, among which the `top_k` best certainly are."""
  spans = sorted(
    (-count * float(most_V[term]), count, *posting_starts_V[term : term + 2])
    for term, count in terms
  )
  rest = -sum(span[0] for span in spans)
  least = 0.0
  touched: list[np.ndarray] = []
  while spans and least <= rest + ROOM:
    negative_most, count, start, end = spans.pop(0)
    rest += negative_most
    postings = postings_P[start:end]
    # A term has one posting per passage, so no index repeats.
    before = scratch_N[postings]
    reached = before + count * scores_P[start:end]
    scratch_N[postings] = reached
    touched.append(postings[before == 0])
    least = max(least, _kth(reached, top_k))
  found_C = np.concatenate(touched)
  reached_C = scratch_N[found_C]
  scratch_N[found_C] = 0
  while True:
    keep_C = reached_C >= least - rest - ROOM
    found_C, reached_C = found_C[keep_C], reached_C[keep_C]
    if not spans or len(found_C) <= top_k:
      return np.sort(found_C)
    negative_most, count, start, end = spans.pop(0)
    rest += negative_most
    reached_C += _added(found_C, count, postings_P[start:end], scores_P, start)
    least = max(least, _kth(reached_C, top_k))


def _kth(scores: np.ndarray, top_k: int) -> float:
  """The k-th best of some scores; 0 if there are fewer."""
  if len(scores) < top_k:
    return 0.0
  return float(np.partition(scores, len(scores) - top_k)[-top_k])


def _added(
  passages_C: np.ndarray,
  count: int,
  postings: np.ndarray,
  scores_P: np.ndarray,
  start: int,
) -> np.ndarray:
  """float32 [C]: what one term adds to each passage."""
  at_C = np.searchsorted(postings, passages_C)
  at_C[at_C == len(postings)] = 0
  added_C = count * scores_P[start + at_C]
  added_C[postings[at_C] != passages_C] = 0
  return added_C


def _scores(
  passages_C: np.ndarray,
  terms: Sequence[tuple[int, int]],
  posting_starts_V: np.ndarray,
  postings_P: np.ndarray,
  scores_P: np.ndarray,
) -> np.ndarray:
  """float32 [C]: the whole score of each passage, added in order of `terms`."""
  total_C = np.zeros(len(passages_C), np.float32)
  for term, count in terms:
    start, end = posting_starts_V[term : term + 2]
    total_C += _added(passages_C, count, postings_P[start:end], scores_P, start)
  return total_C
