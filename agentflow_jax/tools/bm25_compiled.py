"""`bm25_pruning.best` as machine code: the same bits, several times sooner.

Flow: as there: terms, those that can add most first -> add their postings up
until no untouched passage can win -> drop passages that can not, term by term
-> score the rest in the order of their terms, keep the best.

For the retrieval server. It needs numba, which takes a second to import and two
to compile this, so it is no part of the agent's own search.

Axes: N passage, V term, P posting, C candidate, T term of the query, W word of
the query, K result.
"""

import numba
import numpy as np

from agentflow_jax.tools import bm25_pruning

_ROOM = bm25_pruning.ROOM
# Postings read in order in the time of one looked up by bisection.
_READ_PER_LOOKUP = 32

_compile = numba.njit(nogil=True)


@_compile
def best(
  word_W: np.ndarray,
  posting_starts_V: np.ndarray,
  postings_P: np.ndarray,
  scores_P: np.ndarray,
  most_V: np.ndarray,
  scratch_N: np.ndarray,
  top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
  """As `bm25_pruning.best`."""
  term_T, count_T = _terms(word_W)
  most_T = (count_T * most_V[term_T]).astype(np.float64)
  order_T = _order(most_T)
  rest = most_T.sum()
  least = np.float32(0)
  touched_C = np.empty(0, np.int32)
  done = 0
  while done < term_T.size and least <= rest + _ROOM:
    t = order_T[done]
    done += 1
    rest -= most_T[t]
    start, end = posting_starts_V[term_T[t]], posting_starts_V[term_T[t] + 1]
    postings, scores = postings_P[start:end], scores_P[start:end]
    touched_C = _add_to_all(touched_C, scratch_N, count_T[t], postings, scores)
    least = max(least, _kth(postings, scratch_N, top_k))
  found_C = _kept(touched_C, scratch_N, least - rest - _ROOM)
  for t in order_T[done:]:
    if found_C.size <= top_k:
      break
    rest -= most_T[t]
    start, end = posting_starts_V[term_T[t]], posting_starts_V[term_T[t] + 1]
    postings, scores = postings_P[start:end], scores_P[start:end]
    _add(found_C, scratch_N, count_T[t], postings, scores)
    least = max(least, _kth(found_C, scratch_N, top_k))
    found_C = _kept(found_C, scratch_N, least - rest - _ROOM)
  scratch_N[touched_C] = 0
  return _ranked(
    found_C,
    term_T,
    count_T,
    posting_starts_V,
    postings_P,
    scores_P,
    top_k,
  )


@_compile
def _terms(word_W):
  """The terms, ascending (int64 [T]); how often each occurs (float32 [T])."""
  term_T = np.empty(word_W.size, np.int64)
  count_T = np.zeros(word_W.size, np.float32)
  terms = 0
  for word in word_W:
    # Sorted by insertion, here and below: queries are short, and numba takes
    # two seconds to compile one of numpy's sorts.
    at = terms
    while at > 0 and term_T[at - 1] >= word:
      at -= 1
    if at == terms or term_T[at] != word:
      for i in range(terms, at, -1):
        term_T[i], count_T[i] = term_T[i - 1], count_T[i - 1]
      term_T[at], count_T[at] = word, 0
      terms += 1
    count_T[at] += 1
  return term_T[:terms], count_T[:terms]


@_compile
def _order(most_T):
  """Terms (int64 [T]), those that can add most first."""
  order_T = np.arange(most_T.size)
  for t in range(most_T.size):
    at = t
    while at > 0 and most_T[order_T[at - 1]] < most_T[t]:
      order_T[at] = order_T[at - 1]
      at -= 1
    order_T[at] = t
  return order_T


@_compile
def _add_to_all(touched_C, scratch_N, count, postings, scores):
  """Adds a term to all its passages; these and the touched ones."""
  # No larger than it has to be: malloc asks the system for large arrays.
  all_C = np.empty(touched_C.size + postings.size, np.int32)
  all_C[: touched_C.size] = touched_C
  touched = touched_C.size
  for p in range(postings.size):
    before = scratch_N[postings[p]]
    if before == 0:
      all_C[touched] = postings[p]
      touched += 1
    scratch_N[postings[p]] = before + count * scores[p]
  return all_C[:touched]


@_compile
def _put(best_K, score):
  """Takes a score in for the least of them; they ascend."""
  i = 0
  while i + 1 < best_K.size and best_K[i + 1] < score:
    best_K[i] = best_K[i + 1]
    i += 1
  best_K[i] = score


@_compile
def _kth(found_C, scratch_N, top_k):
  """The k-th best that the passages have reached; 0 if there are fewer."""
  best_K = np.zeros(top_k, np.float32)
  for passage in found_C:
    if scratch_N[passage] > best_K[0]:
      _put(best_K, scratch_N[passage])
  return best_K[0]


@_compile
def _kept(found_C, scratch_N, least):
  """The passages that have reached so much."""
  kept_C = np.empty_like(found_C)
  kept = 0
  for passage in found_C:
    if scratch_N[passage] >= least:
      kept_C[kept] = passage
      kept += 1
  return kept_C[:kept]


@_compile
def _add(found_C, scratch_N, count, postings, scores):
  """Adds a term to the passages; reads its postings, or looks them up."""
  if postings.size < _READ_PER_LOOKUP * found_C.size:
    for p in range(postings.size):
      # An untouched passage stays so: that is how touched ones are told.
      if scratch_N[postings[p]] > 0:
        scratch_N[postings[p]] += count * scores[p]
    return
  for passage in found_C:
    at = _at(postings, passage)
    if at >= 0:
      scratch_N[passage] += count * scores[at]


@_compile
def _at(postings, passage):
  """Where a passage is among ascending ones; -1 if it is not."""
  low, high = 0, postings.size
  while low < high:
    middle = (low + high) >> 1
    if postings[middle] < passage:
      low = middle + 1
    else:
      high = middle
  if low < postings.size and postings[low] == passage:
    return low
  return -1


@_compile
def _ranked(
  found_C, term_T, count_T, posting_starts_V, postings_P, scores_P, top_k
):
  """The best passages and their whole scores, added in the order of terms."""
  total_C = np.zeros(found_C.size, np.float32)
  for t in range(term_T.size):
    start, end = posting_starts_V[term_T[t]], posting_starts_V[term_T[t] + 1]
    for c in range(found_C.size):
      at = _at(postings_P[start:end], found_C[c])
      if at >= 0:
        total_C[c] += count_T[t] * scores_P[start + at]
  rank_K = np.empty(min(top_k, found_C.size), np.int64)
  ranked = 0
  for c in range(found_C.size):
    at = ranked
    while at > 0 and _is_better(c, rank_K[at - 1], total_C, found_C):
      at -= 1
    if at < rank_K.size:
      ranked = min(ranked + 1, rank_K.size)
      for i in range(ranked - 1, at, -1):
        rank_K[i] = rank_K[i - 1]
      rank_K[at] = c
  return found_C[rank_K], total_C[rank_K]


@_compile
def _is_better(c, other, total_C, found_C):
  """Whether a candidate comes before another; ties by passage."""
  if total_C[c] != total_C[other]:
    return total_C[c] > total_C[other]
  return found_C[c] < found_C[other]
