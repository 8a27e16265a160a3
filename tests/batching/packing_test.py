import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from agentflow_jax.batching import packing
from agentflow_jax.core import training_sample as training_sample_lib

# Time on a shared machine says nothing about the property.
_SETTINGS = hypothesis.settings(deadline=None, max_examples=60)


def _sample(prompt, completion, seed=0, **fields):
  defaults = {"advantage": 1.0, "weight": 1.0, "group": 0, "trajectory": 0}
  rng = np.random.default_rng(seed)
  return training_sample_lib.TrainingSample(
    prompt_ids=np.array(prompt, np.int32),
    completion_ids=np.array(completion, np.int32),
    behavior_logprobs=-rng.random(len(completion), np.float32),
    **(defaults | {"turn": 0} | fields),
  )


def _numbered(pairs):
  """Samples whose advantage and weight tell them apart."""
  return [
    _sample(p, c, seed=i, advantage=1.0 + i, weight=0.5 + i)
    for i, (p, c) in enumerate(pairs)
  ]


# Turn 1 of two members, turn 2 of the first, and an exact duplicate.
_GROUP = _numbered(
  [
    ([1, 2, 3], [4, 5]),
    ([1, 2, 3], [4, 6]),
    ([1, 2, 7, 8], [9]),
    ([1, 2, 3], [4, 5]),
  ]
)


def _check_row(row, samples, *, distinct):
  """Rebuilds every sample of the row from the row alone."""
  count = len(row.tokens_T)
  index = np.arange(count)
  sees_TT = (index[None] <= index[:, None]) & (
    index[:, None] < row.subtree_end_T[None]
  )
  prefixes = [tuple(row.tokens_T[sees_TT[i]].tolist()) for i in index]
  for i in index:
    np.testing.assert_array_equal(
      row.positions_T[sees_TT[i]], np.arange(len(prefixes[i]))
    )
  if distinct:
    assert len(set(prefixes)) == count
  assert len(row.samples) == len(set(row.samples))
  for number, source in enumerate(row.samples):
    sample = samples[source]
    mine = np.flatnonzero(row.sample_E == number)
    np.testing.assert_array_equal(np.diff(mine), 1)
    np.testing.assert_array_equal(row.target_E[mine], sample.completion_ids)
    ids = [*sample.prompt_ids.tolist(), *sample.completion_ids.tolist()]
    for j, entry in enumerate(mine):
      known = len(sample.prompt_ids) + j
      assert prefixes[row.parent_E[entry]] == tuple(ids[:known])
    np.testing.assert_array_equal(
      row.behavior_logprob_E[mine], sample.behavior_logprobs
    )
    assert (row.advantage_E[mine] == np.float32(sample.advantage)).all()
    assert (row.weight_E[mine] == np.float32(sample.weight)).all()
  assert len(row.parent_E) == sum(
    len(samples[n].completion_ids) for n in row.samples
  )
  return prefixes


def _check(packed, samples, row_tokens, *, tree):
  prefixes = set()
  computed = 0
  for row in packed.rows:
    assert 0 < len(row.tokens_T) <= row_tokens
    prefixes.update(_check_row(row, samples, distinct=tree))
    computed += len(row.tokens_T)
  placed = sorted(n for row in packed.rows for n in row.samples)
  assert placed == list(range(len(samples)))
  metrics = packed.metrics
  assert metrics["distinct_tokens"] == len(prefixes)
  assert metrics["computed_tokens"] == computed
  assert metrics["repeated_tokens"] == computed - len(prefixes)
  assert metrics["padding_tokens"] == row_tokens * len(packed.rows) - computed


def test_a_group_is_computed_once():
  packed = packing.pack_samples(_GROUP, row_tokens=16)
  (row,) = packed.rows
  np.testing.assert_array_equal(row.tokens_T, [1, 2, 3, 4, 5, 6, 7, 8, 9])
  np.testing.assert_array_equal(row.positions_T, [0, 1, 2, 3, 4, 4, 2, 3, 4])
  np.testing.assert_array_equal(row.subtree_end_T, [9, 9, 6, 6, 5, 6, 9, 9, 9])
  assert packed.metrics == {
    "rows": 1,
    "sample_tokens": 20,
    "distinct_tokens": 9,
    "computed_tokens": 9,
    "repeated_tokens": 0,
    "padding_tokens": 7,
    "computed_over_distinct": 1,
  }


def test_samples_that_share_a_sampled_token_keep_their_own_entries():
  (row,) = packing.pack_samples(_GROUP, row_tokens=16).rows
  # Token 4 (row index 3) was sampled by three samples, from row index 2.
  hits = np.flatnonzero(row.parent_E == 2)
  assert (row.target_E[hits] == 4).all()
  weights = sorted(row.weight_E[hits].tolist())
  assert weights == [0.5, 1.5, 3.5]
  assert len(set(row.behavior_logprob_E[hits].tolist())) == 3


def test_rows_strategy_shares_nothing():
  packed = packing.pack_samples(_GROUP, row_tokens=16, strategy="rows")
  _check(packed, _GROUP, 16, tree=False)
  assert packed.metrics["computed_tokens"] == 20
  assert packed.metrics["repeated_tokens"] == 11
  assert packed.metrics["rows"] == 2


def test_a_tree_larger_than_a_row_repeats_only_the_shared_prefix():
  shared = [1, 2, 3, 4]
  samples = _numbered([(shared, [10 + i, 20 + i]) for i in range(4)])
  packed = packing.pack_samples(samples, row_tokens=8)
  _check(packed, samples, 8, tree=True)
  assert packed.metrics["rows"] == 2
  assert packed.metrics["repeated_tokens"] == 4


_PAIRS = st.lists(
  st.tuples(
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.lists(st.integers(0, 2), min_size=0, max_size=4),
  ),
  max_size=12,
)


@_SETTINGS
@hypothesis.given(_PAIRS, st.integers(10, 24))
def test_every_sample_comes_back_exactly(pairs, row_tokens):
  samples = _numbered(pairs)
  tree = packing.pack_samples(samples, row_tokens=row_tokens)
  rows = packing.pack_samples(samples, row_tokens=row_tokens, strategy="rows")
  _check(tree, samples, row_tokens, tree=True)
  _check(rows, samples, row_tokens, tree=False)
  assert tree.metrics["rows"] <= rows.metrics["rows"]
  assert tree.metrics["computed_tokens"] <= rows.metrics["computed_tokens"]
  if tree.metrics["distinct_tokens"] <= row_tokens:
    assert tree.metrics["repeated_tokens"] == 0


def test_first_fit_decreasing_fills_gaps():
  # 6+4 and 5+5 fill two rows; taken in order, 5 6 4 5 would need three.
  samples = _numbered([([n] * n, []) for n in (5, 6, 4)] + [([9] * 5, [])])
  packed = packing.pack_samples(samples, row_tokens=10)
  assert packed.metrics["rows"] == 2
  assert packed.metrics["padding_tokens"] == 0


def test_too_long_a_sample_names_both_numbers():
  with pytest.raises(ValueError, match="9 tokens, but a row holds 8"):
    packing.pack_samples([_sample([1] * 7, [2] * 2)], row_tokens=8)


def test_a_sample_without_prompt_is_refused():
  with pytest.raises(ValueError, match="group 3.*no prompt"):
    packing.pack_samples([_sample([], [2], group=3)], row_tokens=8)


def test_unknown_strategy():
  with pytest.raises(ValueError, match="graph"):
    packing.pack_samples([], row_tokens=8, strategy="graph")


def test_nothing_to_pack():
  for strategy in packing.STRATEGIES:
    packed = packing.pack_samples([], row_tokens=8, strategy=strategy)
    assert packed.rows == ()
    assert packed.metrics["computed_over_distinct"] == 0


def test_cost_is_per_array_not_per_token():
  # Ten times the tokens in equally many samples: whole-array work grows far
  # less than tenfold, a Python loop over tokens would not.
  def seconds(prompt_tokens):
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 1000, prompt_tokens)
    samples = [
      _sample([*shared, i % 40, i], [1, 2, 3], seed=i) for i in range(200)
    ]
    best = np.inf
    for _ in range(3):
      start = time.process_time()
      packing.pack_samples(samples, row_tokens=prompt_tokens + 1000)
      best = min(best, time.process_time() - start)
    return best

  assert seconds(10_000) < 5 * seconds(1_000)
