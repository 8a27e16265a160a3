"""Rows are moved together, and only when that empties a group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_jax.sampler import compaction


def _moves(active, shards=1, group_rows=4):
  return compaction.moves(
    np.asarray(active, bool), shards=shards, group_rows=group_rows
  )


@pytest.mark.parametrize(
  ("active", "expected"),
  [
    ([1, 0, 0, 0, 0, 0, 0, 1], [(7, 1)]),
    ([1, 0, 0, 0, 0, 1, 1, 0], [(0, 4)]),  # the fuller group stays
    ([1, 1, 0, 0, 1, 1, 1, 0], []),  # five rows need two groups
    ([0, 0, 0, 0, 0, 0, 0, 1], []),  # one group is active already
    ([0] * 8, []),
    ([1] * 8, []),
  ],
)
def test_hand_made_rows(active, expected):
  assert _moves(active) == expected


def test_rows_stay_in_their_shard():
  active = [1, 0, 0, 1, 0, 0, 0, 1]
  assert _moves(active, shards=2, group_rows=2) == [(3, 1)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=24, max_size=24))
def test_as_few_groups_as_possible_are_left(active):
  active_S = np.asarray(active)
  after_S = active_S.copy()
  for source, target in _moves(active, shards=2):
    assert after_S[source] and not after_S[target]
    assert source // 12 == target // 12
    after_S[[source, target]] = after_S[[target, source]]
  count_PJ = after_S.reshape(2, 3, 4).sum(axis=2)
  needed_P = -(-count_PJ.sum(axis=1) // 4)
  assert (np.count_nonzero(count_PJ, axis=1) == needed_P).all()
  assert after_S.sum() == active_S.sum()
