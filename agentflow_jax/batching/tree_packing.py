"""Token trees: what samples share is laid out, and later computed, once.

Flow: sequences (prompt + completion) -> lexicographic order with the common
prefix length of neighbours -> runs that fit a row -> depth-first layout of each
row. Sorting makes the trie implicit: a sequence's new nodes are exactly its
tokens past the prefix it shares with its predecessor, and they lie side by side
in the row, so everything is whole-array numpy, never a loop over tokens.

Example: (5 6 7 8) and (5 6 9) share two tokens and become the row
  token        5 6 7 8 9
  position     0 1 2 3 2
  subtree_end  5 5 4 4 5
in which token i sees token j iff j <= i < subtree_end[j] (design section 6).

Does not know of losses, weights or devices.

Axes: N sequence, T row token.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedSequences:
  """Sequences in lexicographic order of their token ids.

  `shared_N[n]` is how many leading tokens sequence n shares with n - 1 (0 for
  the first), so the trie of all has `sum(lengths_N - shared_N)` nodes and
  starting a new row before n repeats `shared_N[n]` of them.
  """

  sequences: tuple[np.ndarray, ...]  # int32, each
  source_N: np.ndarray  # int64, index before sorting
  lengths_N: np.ndarray  # int64
  shared_N: np.ndarray  # int64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TreeLayout:
  """One row: a forest of token tries in depth-first order.

  `paths[n][d]` is the row index of token d of the n-th sequence laid out.
  """

  tokens_T: np.ndarray  # int32
  positions_T: np.ndarray  # int32
  subtree_end_T: np.ndarray  # int32
  paths: tuple[np.ndarray, ...]  # int32, each


def sort_sequences(sequences: Sequence[np.ndarray]) -> SortedSequences:
  """Sorts int32 id sequences; equal ones keep their order."""
  # Big-endian bytes compare like the ids themselves, at memcmp speed.
  keys = [np.asarray(s).astype(">u4").tobytes() for s in sequences]
  order = sorted(range(len(keys)), key=keys.__getitem__)
  ordered = tuple(np.asarray(sequences[i], np.int32) for i in order)
  shared = [0] + [
    common_prefix(ordered[n - 1], ordered[n]) for n in range(1, len(ordered))
  ]
  return SortedSequences(
    sequences=ordered,
    source_N=np.array(order, np.int64),
    lengths_N=np.array([len(s) for s in ordered], np.int64),
    shared_N=np.array(shared[: len(ordered)], np.int64),
  )


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
  """Number of leading ids two sequences share."""
  length = min(len(first), len(second))
  differs = first[:length] != second[:length]
  return int(differs.argmax()) if differs.any() else length


def cut_runs(ordered: SortedSequences, limit: int) -> np.ndarray:
  """Cuts the sorted order into runs whose tries have at most `limit` nodes.

  A run is the subtrees between two leaves; cutting before sequence n repeats
  its `shared_N[n]` leading tokens in the next run. The cuts are optimal:
  fewest runs, then fewest repeated tokens. A sequence longer than `limit` is a
  run of its own.

  Returns:
    int64 start indices of the runs, the first being 0.
  """
  count = len(ordered.sequences)
  new = ordered.lengths_N - ordered.shared_N
  # Nodes of the run [i, j) = ends[j] - starts[i]; starts never decreases,
  # because a sequence shares no more than its predecessor's whole length.
  ends = np.concatenate([[0], np.cumsum(new)])
  starts = ends[:-1] - ordered.shared_N
  first = np.searchsorted(starts, ends[1:] - limit, side="left")
  # best_i = min over cuts of (runs, repeated tokens) for sequences [0, i), as
  # one integer: a run weighs more than all the tokens that could be repeated.
  run_weight = int(ordered.shared_N.sum()) + 1
  best = np.zeros(count + 1, np.int64)
  previous = np.zeros(count + 1, np.int64)
  price = np.zeros(count, np.int64)  # best_i + the repeat of starting at i
  for j in range(1, count + 1):
    price[j - 1] = best[j - 1] + ordered.shared_N[j - 1]
    low = min(int(first[j - 1]), j - 1)
    choice = low + int(price[low:j].argmin())
    previous[j] = choice
    best[j] = price[choice] + run_weight
  cuts, at = [], count
  while at > 0:
    at = int(previous[at])
    cuts.append(at)
  return np.array(cuts[::-1], np.int64)


def lay_out(
  sequences: Sequence[np.ndarray], shared: Sequence[int]
) -> TreeLayout:
  """Lays sequences out as one row.

  Args:
    sequences: int32 ids, each at least one token, in lexicographic order
      (any order if nothing is shared).
    shared: leading tokens each sequence shares with the one before; 0 starts a
      new tree, and the first must be 0.
  """
  offsets = np.cumsum(
    [0, *(len(s) - n for s, n in zip(sequences, shared, strict=True))]
  )
  total = int(offsets[-1])
  tokens = np.zeros(total, np.int32)
  positions = np.zeros(total, np.int32)
  subtree_end = np.full(total, total, np.int32)
  path = np.zeros(0, np.int32)
  paths = []
  for sequence, kept, start, end in zip(
    sequences, shared, offsets, offsets[1:], strict=False
  ):
    # What the new sequence leaves behind is complete: its subtrees end here.
    subtree_end[path[kept:]] = start
    path = np.concatenate([path[:kept], np.arange(start, end, dtype=np.int32)])
    tokens[start:end] = sequence[kept:]
    positions[start:end] = np.arange(kept, len(sequence), dtype=np.int32)
    paths.append(path)
  return TreeLayout(
    tokens_T=tokens,
    positions_T=positions,
    subtree_end_T=subtree_end,
    paths=tuple(paths),
  )
