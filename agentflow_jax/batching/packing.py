"""TrainingSamples -> rows of one fixed length, with their loss entries.

Flow: samples -> runs of neighbours in the token trie (`tree`) or single samples
(`rows`) -> first-fit-decreasing bins -> one PackedRow per bin. Both strategies
train on the same numbers; `tree` computes a shared prefix once per row.

Rows, not tokens, are what a device pays for, so a tree is split at a subtree
wherever that needs fewer rows; the tokens repeated by it are counted. A sample
is never split. Knows nothing of batches, devices or the loss.

Axes: T row token, E loss entry (one per trained token).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from agentflow_jax.batching import tree_packing
from agentflow_jax.core import training_sample as training_sample_lib

TrainingSample = training_sample_lib.TrainingSample

STRATEGIES = ("tree", "rows")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedRow:
  """The used part of one row; `TrainBatch` adds the padding.

  Token i sees token j iff `j <= i < subtree_end[j]`. Entry e trains `target`
  from the hidden state at row index `parent`; entries of one sample are
  adjacent, in completion order, and `sample` numbers samples inside the row.

  Example: sample prompt (5 6), completion (7 8) alone in a row: tokens 5 6 7 8,
  parent (1, 2), target (7, 8), sample (0, 0).
  """

  tokens_T: np.ndarray  # int32
  positions_T: np.ndarray  # int32, depth in the tree
  subtree_end_T: np.ndarray  # int32
  parent_E: np.ndarray  # int32
  target_E: np.ndarray  # int32
  behavior_logprob_E: np.ndarray  # float32
  advantage_E: np.ndarray  # float32
  weight_E: np.ndarray  # float32
  sample_E: np.ndarray  # int32
  samples: tuple[int, ...]  # `sample` -> index in the packed sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
  """All rows of an optimizer batch and what they cost."""

  rows: tuple[PackedRow, ...]
  metrics: dict[str, float]


def pack_samples(
  samples: Sequence[TrainingSample],
  *,
  row_tokens: int,
  strategy: str = "tree",
) -> Packing:
  """Packs samples into rows of at most `row_tokens` tokens.

  The metrics count tokens: `sample_tokens` (prompt + completion of every
  sample), `distinct_tokens` (nodes of one trie over all samples),
  `computed_tokens` (in the rows), `repeated_tokens` (their difference),
  `padding_tokens` (to the ends of the rows); and `rows`,
  `computed_over_distinct`.

  Raises:
    ValueError: a sample is longer than a row or has no prompt, or the strategy
      is unknown.
  """
  if strategy not in STRATEGIES:
    raise ValueError(f"packing {strategy!r} is unknown; known: {STRATEGIES}")
  _check(samples, row_tokens)
  ordered = tree_packing.sort_sequences(
    [np.concatenate([s.prompt_ids, s.completion_ids]) for s in samples]
  )
  distinct = int((ordered.lengths_N - ordered.shared_N).sum())
  if strategy == "rows":
    bins = _first_fit_decreasing(ordered.lengths_N, row_tokens)
    no_share = np.zeros_like(ordered.shared_N)
    shared = [no_share[members] for members in bins]
  else:
    bins = _tree_bins(ordered, row_tokens) if samples else []
    shared = [_shared(ordered, members) for members in bins]
  rows = tuple(
    _row(samples, ordered, members, kept)
    for members, kept in zip(bins, shared, strict=True)
  )
  computed = sum(len(row.tokens_T) for row in rows)
  return Packing(
    rows=rows,
    metrics={
      "rows": float(len(rows)),
      "sample_tokens": float(ordered.lengths_N.sum()),
      "distinct_tokens": float(distinct),
      "computed_tokens": float(computed),
      "repeated_tokens": float(computed - distinct),
      "padding_tokens": float(len(rows) * row_tokens - computed),
      "computed_over_distinct": computed / max(1, distinct),
    },
  )


def _check(samples: Sequence[TrainingSample], row_tokens: int):
  for sample in samples:
    length = len(sample.prompt_ids) + len(sample.completion_ids)
    if length > row_tokens:
      raise ValueError(
        f"a sample has {length} tokens, but a row holds {row_tokens}; raise "
        "learner.row_tokens or shorten sampler.max_prompt_tokens + "
        "sampler.max_completion_tokens"
      )
    if not len(sample.prompt_ids):
      raise ValueError(
        f"the sample of group {sample.group}, trajectory {sample.trajectory}, "
        f"turn {sample.turn} has no prompt, so nothing predicts its first token"
      )


def _tree_bins(
  ordered: tree_packing.SortedSequences, row_tokens: int
) -> list[np.ndarray]:
  """Sorted sequence indices of each row: fewest rows, then fewest tokens.

  Runs of neighbours share most; single samples (limit 0) fill rows better when
  there is little to share, so `tree` never needs more rows than `rows`.
  """
  everyone = np.arange(len(ordered.sequences))
  candidates = []
  for limit in (row_tokens, 0):
    starts = tree_packing.cut_runs(ordered, limit)
    runs = np.split(everyone, starts[1:])
    sizes = np.array([_nodes(ordered, run) for run in runs], np.int64)
    candidates.append(
      [
        np.sort(np.concatenate([runs[i] for i in chosen]))
        for chosen in _first_fit_decreasing(sizes, row_tokens)
      ]
    )
  return min(
    candidates,
    key=lambda bins: (len(bins), sum(_nodes(ordered, b) for b in bins)),
  )


def _shared(
  ordered: tree_packing.SortedSequences, members: np.ndarray
) -> np.ndarray:
  """Leading tokens each of the sorted `members` shares with the one before.

  Two sequences share as much as the least that any neighbours between them do.
  """
  shared = ordered.shared_N[members].copy()
  shared[0] = 0
  for k in np.flatnonzero(np.diff(members) > 1) + 1:
    shared[k] = ordered.shared_N[members[k - 1] + 1 : members[k] + 1].min()
  return shared


def _nodes(ordered: tree_packing.SortedSequences, members: np.ndarray) -> int:
  """Trie nodes of the sorted `members`."""
  lengths = ordered.lengths_N[members]
  return int(lengths.sum() - _shared(ordered, members).sum())


def _first_fit_decreasing(sizes: np.ndarray, capacity: int) -> list[np.ndarray]:
  """Item indices per bin; every size is at most `capacity`."""
  free = np.full(len(sizes), capacity, np.int64)
  bins: list[list[int]] = [[] for _ in sizes]
  used = 0
  for item in np.argsort(-np.asarray(sizes), kind="stable"):
    fits = free[: used + 1] >= sizes[item]
    slot = int(fits.argmax())
    free[slot] -= sizes[item]
    bins[slot].append(int(item))
    used = max(used, slot + 1)
  return [np.array(members, np.int64) for members in bins[:used]]


def _row(
  samples: Sequence[TrainingSample],
  ordered: tree_packing.SortedSequences,
  members: np.ndarray,
  shared: np.ndarray,
) -> PackedRow:
  layout = tree_packing.lay_out(
    [ordered.sequences[n] for n in members], shared.tolist()
  )
  sources = tuple(int(n) for n in ordered.source_N[members])
  inside = [samples[n] for n in sources]
  lengths = [len(s.completion_ids) for s in inside]
  parents = [
    path[len(s.prompt_ids) - 1 : -1]
    for path, s in zip(layout.paths, inside, strict=True)
  ]

  def per_entry(values, dtype):
    return np.repeat(np.asarray(values, dtype), lengths)

  return PackedRow(
    tokens_T=layout.tokens_T,
    positions_T=layout.positions_T,
    subtree_end_T=layout.subtree_end_T,
    parent_E=np.concatenate(parents),
    target_E=np.concatenate([s.completion_ids for s in inside]).astype(
      np.int32
    ),
    behavior_logprob_E=np.concatenate(
      [s.behavior_logprobs for s in inside]
    ).astype(np.float32),
    advantage_E=per_entry([s.advantage for s in inside], np.float32),
    weight_E=per_entry([s.weight for s in inside], np.float32),
    sample_E=per_entry(np.arange(len(inside)), np.int32),
    samples=sources,
  )
