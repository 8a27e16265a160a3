import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from agentflow_jax.batching import tree_packing

# Time on a shared machine says nothing about the property.
_SETTINGS = hypothesis.settings(deadline=None, max_examples=60)

# Few ids, so that sharing, prefixes of each other and duplicates all happen.
_SEQUENCES = st.lists(
  st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=9
)


def _arrays(sequences):
  return [np.array(s, np.int32) for s in sequences]


def test_hand_made_tree():
  ordered = tree_packing.sort_sequences(_arrays([[5, 6, 9], [5, 6, 7, 8]]))
  np.testing.assert_array_equal(ordered.source_N, [1, 0])
  np.testing.assert_array_equal(ordered.shared_N, [0, 2])
  layout = tree_packing.lay_out(ordered.sequences, ordered.shared_N.tolist())
  np.testing.assert_array_equal(layout.tokens_T, [5, 6, 7, 8, 9])
  np.testing.assert_array_equal(layout.positions_T, [0, 1, 2, 3, 2])
  np.testing.assert_array_equal(layout.subtree_end_T, [5, 5, 4, 4, 5])
  np.testing.assert_array_equal(layout.paths[1], [0, 1, 4])


def test_two_trees_in_a_row_do_not_see_each_other():
  layout = tree_packing.lay_out(_arrays([[1, 2], [3]]), [0, 0])
  np.testing.assert_array_equal(layout.positions_T, [0, 1, 0])
  np.testing.assert_array_equal(layout.subtree_end_T, [2, 2, 3])


@_SETTINGS
@hypothesis.given(_SEQUENCES)
def test_sorting_is_lexicographic_and_shared_is_the_common_prefix(sequences):
  # Ids above 127 and above 65535 would betray a wrong byte order.
  scale = 70_001
  ordered = tree_packing.sort_sequences(
    [np.array(s, np.int32) * scale for s in sequences]
  )
  as_tuples = [tuple((s // scale).tolist()) for s in ordered.sequences]
  assert as_tuples == sorted(map(tuple, sequences))
  for n, s in enumerate(as_tuples):
    before = as_tuples[n - 1] if n else ()
    same = [a == b for a, b in zip(before, s, strict=False)]
    assert ordered.shared_N[n] == (same + [False]).index(False)
    assert tuple(sequences[ordered.source_N[n]]) == s


@_SETTINGS
@hypothesis.given(_SEQUENCES)
def test_layout_is_the_trie_and_the_mask_is_ancestor_or_self(sequences):
  ordered = tree_packing.sort_sequences(_arrays(sequences))
  layout = tree_packing.lay_out(ordered.sequences, ordered.shared_N.tolist())
  prefix_of = {}
  for sequence, path in zip(ordered.sequences, layout.paths, strict=True):
    ids = sequence.tolist()
    for depth, index in enumerate(path.tolist()):
      prefix = tuple(ids[: depth + 1])
      assert prefix_of.setdefault(index, prefix) == prefix
      assert layout.tokens_T[index] == ids[depth]
      assert layout.positions_T[index] == depth
  # Every node is one distinct prefix: nothing is laid out twice.
  assert sorted(prefix_of) == list(range(len(layout.tokens_T)))
  assert len(set(prefix_of.values())) == len(prefix_of)
  for i, j in itertools.product(prefix_of, repeat=2):
    sees = j <= i < layout.subtree_end_T[j]
    ancestor_or_self = prefix_of[i][: len(prefix_of[j])] == prefix_of[j]
    assert sees == ancestor_or_self


def _run_cost(sequences):
  return len({tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)})


def _best_cuts(sequences, limit):
  """(runs, tokens) of the best of all ways to cut, by trying every one."""
  count = len(sequences)
  best = None
  for cuts in itertools.product([False, True], repeat=count - 1):
    bounds = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), count]
    runs = [sequences[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    costs = [_run_cost(run) for run in runs]
    if any(c > limit and len(r) > 1 for c, r in zip(costs, runs, strict=True)):
      continue
    cost = (len(runs), sum(costs))
    best = cost if best is None else min(best, cost)
  return best


@_SETTINGS
@hypothesis.given(_SEQUENCES, st.integers(1, 20))
def test_cuts_are_the_best_of_all_cuts(sequences, limit):
  ordered = tree_packing.sort_sequences(_arrays(sequences))
  starts = tree_packing.cut_runs(ordered, limit)
  assert starts[0] == 0
  runs = np.split(np.arange(len(sequences)), starts[1:])
  chosen = [[ordered.sequences[n].tolist() for n in run] for run in runs]
  assert all(_run_cost(run) <= limit or len(run) == 1 for run in chosen)
  in_order = [s.tolist() for s in ordered.sequences]
  cost = (len(chosen), sum(_run_cost(run) for run in chosen))
  assert cost == _best_cuts(in_order, limit)


@pytest.mark.parametrize(
  ("first", "second", "expected"),
  [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2], [1, 3], 1), ([1], [1, 2], 1)],
)
def test_common_prefix(first, second, expected):
  got = tree_packing.common_prefix(*_arrays([first, second]))
  assert got == expected
