"""The drill trains copies only, and every batch of it is a fair mean."""

import numpy as np
import pytest

from agentflow_jax.training import copying

# So large that random tokens do not repeat by chance.
_VOCAB = 2**30


def _drills(rows=16, tokens=48, seeds=range(20), vocab=_VOCAB):
  for seed in seeds:
    yield copying.drill(np.random.default_rng(seed), rows, tokens, vocab)


@pytest.mark.parametrize("tokens", [32, 64])
def test_what_is_trained_was_seen_before_behind_the_same_token(tokens):
  """Anything else would teach noise: nothing says what comes next."""
  count = 0
  for batch in _drills(tokens=tokens):
    for row_T, parent_E, target_E, weight_E in zip(
      batch.tokens_BT,
      batch.parent_BE,
      batch.target_BE,
      batch.weight_BE,
      strict=True,
    ):
      for parent, target in zip(
        parent_E[weight_E > 0], target_E[weight_E > 0], strict=True
      ):
        assert row_T[parent + 1] == target
        earlier = np.flatnonzero(row_T[:parent] == row_T[parent])
        assert target in row_T[earlier + 1]
        count += 1
  assert count > 1000


def test_copies_come_from_many_distances():
  """A head that always looks the same way back must not be enough."""
  distances = set()
  for batch in _drills():
    for row_T, parent_E, weight_E in zip(
      batch.tokens_BT, batch.parent_BE, batch.weight_BE, strict=True
    ):
      for parent in parent_E[weight_E > 0]:
        earlier = np.flatnonzero(row_T[:parent] == row_T[parent])
        distances.add(int(parent - earlier[-1]))
  assert len(distances) > 20


def test_every_token_of_the_vocabulary_is_a_target():
  seen = set()
  for batch in _drills(vocab=50):
    seen |= set(batch.target_BE[batch.weight_BE > 0].tolist())
  assert seen == set(range(50))


def test_weights_add_up_to_one_and_are_equal():
  for batch in _drills(seeds=range(5)):
    used = batch.weight_BE > 0
    np.testing.assert_allclose(batch.weight_BE.sum(), 1, rtol=1e-5)
    assert len(set(batch.weight_BE[used].tolist())) == 1
    assert (batch.sample_BE[~used] == -1).all()
    assert (batch.sample_BE[used] >= 0).all()
    assert used.any(axis=1).all()


def test_a_row_is_one_plain_sequence():
  (batch,) = _drills(rows=3, tokens=40, seeds=[1])
  assert batch.tokens_BT.shape == (3, 40)
  np.testing.assert_array_equal(
    batch.positions_BT, np.tile(np.arange(40), (3, 1))
  )
  assert (batch.subtree_end_BT == 40).all()
  assert batch.tokens_BT.min() >= 0 and batch.tokens_BT.max() < _VOCAB


def test_equal_generators_give_equal_drills():
  (first,), (same,), (other,) = (list(_drills(seeds=[s])) for s in (3, 3, 4))
  np.testing.assert_array_equal(first.tokens_BT, same.tokens_BT)
  np.testing.assert_array_equal(first.parent_BE, same.parent_BE)
  assert (first.tokens_BT != other.tokens_BT).any()
