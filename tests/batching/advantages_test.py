import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from agentflow_jax.batching import advantages
from agentflow_jax.testing import loss_oracle

# Time on a shared machine says nothing about the property.
_SETTINGS = hypothesis.settings(deadline=None, max_examples=60)


def test_hand_made_group():
  # mean 0.5, sample variance (4 * 0.25) / 3, std 0.57735.
  out_G = advantages.group_advantages([1, 0, 0, 1], [True] * 4)
  assert out_G.dtype == np.float32
  expected = 0.5 / (np.sqrt(1 / 3) + 1e-6)
  np.testing.assert_allclose(
    out_G, [expected, -expected, -expected, expected], rtol=1e-6
  )


def test_epsilon_is_outside_the_root():
  # std is 1e-6 * sqrt(1/2): inside the root epsilon would give 1e-3 scales.
  out_G = advantages.group_advantages([0.0, 1e-6], [True, True])
  std = 1e-6 * np.sqrt(0.5)
  np.testing.assert_allclose(out_G[1], 0.5e-6 / (std + 1e-6), rtol=1e-5)


def test_paper_and_reference_statistics_differ_as_documented():
  # 4 correct one-turn and 4 wrong three-turn trajectories: the paper's
  # +-0.935 against the reference code's +1.677 / -0.559.
  rewards, turns = [1] * 4 + [0] * 4, [1] * 4 + [3] * 4
  paper_G = advantages.group_advantages(rewards, [True] * 8)
  reference_G = advantages.group_advantages(
    rewards, [True] * 8, turns_G=turns, statistics_over="turns"
  )
  np.testing.assert_allclose(paper_G[[0, 4]], [0.93541, -0.93541], atol=1e-5)
  np.testing.assert_allclose(
    reference_G[[0, 4]], [1.67705, -0.55902], atol=1e-5
  )


def test_without_std_only_the_mean_is_removed():
  out_G = advantages.group_advantages(
    [1, 0, 0, 0], [True] * 4, normalize_by_std=False
  )
  np.testing.assert_array_equal(
    out_G, np.array([0.75, -0.25, -0.25, -0.25], np.float32)
  )


def test_masked_members_get_zero_and_leave_the_statistics():
  out_G = advantages.group_advantages(
    [1, np.nan, 0, 99], [True, False, True, False]
  )
  pair_G = advantages.group_advantages([1, 0], [True, True])
  np.testing.assert_array_equal(out_G, [pair_G[0], 0, pair_G[1], 0])


@pytest.mark.parametrize(
  ("rewards", "valid"),
  [
    ([1, 1, 1], [True] * 3),
    ([0.1, 0.1, 0.1], [True] * 3),  # its float mean is not 0.1
    ([5], [True]),
    ([1, 0], [True, False]),
    ([1, 0], [False, False]),
    ([], []),
  ],
)
def test_nothing_to_compare_gives_exact_zeros(rewards, valid):
  for normalize in (True, False):
    out_G = advantages.group_advantages(
      rewards, valid, normalize_by_std=normalize
    )
    assert out_G.shape == (len(rewards),)
    assert not out_G.any()


def test_turn_statistics_of_a_group_whose_rows_are_one_trajectory():
  # Member 1 never got a turn: the rows hold one reward, nothing to compare.
  out_G = advantages.group_advantages(
    [1, 0], [True, True], turns_G=[3, 0], statistics_over="turns"
  )
  assert not out_G.any()


@pytest.mark.parametrize(
  ("kwargs", "words"),
  [
    ({"statistics_over": "rows"}, "unknown"),
    ({"statistics_over": "turns"}, "needs turns_G"),
    ({"statistics_over": "turns", "turns_G": [1]}, "shape"),
    ({"baseline": "median"}, "baseline 'median' is unknown"),
    ({"baseline": "none"}, "normalize_by_std=False"),
  ],
)
def test_bad_arguments(kwargs, words):
  with pytest.raises(ValueError, match=words):
    advantages.group_advantages([1, 0], [True, True], **kwargs)


def test_bad_rewards():
  with pytest.raises(ValueError, match="not finite"):
    advantages.group_advantages([np.nan, 0], [True, True])
  with pytest.raises(ValueError, match="equal"):
    advantages.group_advantages([1, 0], [True])


_MEMBER = st.tuples(
  st.one_of(st.none(), st.integers(0, 1), st.floats(-2, 2, width=16)),
  st.integers(1, 4),
)


def test_leave_one_out_by_hand():
  """Rewards 3, 0, (lost), 1 with 2, 1, 9, 3 turns."""
  common = {"normalize_by_std": False, "baseline": "leave_one_out"}
  rewards, valid = [3, 0, np.nan, 1], [True, True, False, True]
  out_G = advantages.group_advantages(rewards, valid, **common)
  np.testing.assert_allclose(out_G, [3 - 0.5, 0 - 2, 0, 1 - 1.5])
  out_G = advantages.group_advantages(
    rewards, valid, turns_G=[2, 1, 9, 3], statistics_over="turns", **common
  )
  np.testing.assert_allclose(
    out_G, [3 - 3 / 4, 0 - 9 / 5, 0, 1 - 6 / 3], rtol=1e-6
  )


def test_without_a_baseline_rewards_stay_as_they_are():
  out_G = advantages.group_advantages(
    [0.5, 0.5, 7], [True, True, False], normalize_by_std=False, baseline="none"
  )
  np.testing.assert_array_equal(out_G, [0.5, 0.5, 0])


@_SETTINGS
@hypothesis.given(st.lists(_MEMBER, max_size=9), st.booleans())
def test_leave_one_out_equals_the_oracle(members, normalize):
  rewards = [reward for reward, _ in members]
  out_G = advantages.group_advantages(
    [np.nan if r is None else r for r in rewards],
    [r is not None for r in rewards],
    normalize_by_std=normalize,
    baseline="leave_one_out",
  )
  expected = loss_oracle.oracle_advantages(
    rewards, normalize_by_std=normalize, leave_one_out=True
  )
  np.testing.assert_allclose(out_G, expected, rtol=1e-5, atol=1e-5)


@_SETTINGS
@hypothesis.given(st.lists(_MEMBER, max_size=9), st.booleans(), st.booleans())
def test_equals_oracle_and_sums_to_zero(members, normalize, over_turns):
  rewards = [reward for reward, _ in members]
  turns = [n for _, n in members]
  out_G = advantages.group_advantages(
    [np.nan if r is None else r for r in rewards],
    [r is not None for r in rewards],
    normalize_by_std=normalize,
    turns_G=turns,
    statistics_over="turns" if over_turns else "trajectories",
  )
  expected = loss_oracle.oracle_advantages(
    rewards,
    normalize_by_std=normalize,
    turns=turns if over_turns else None,
  )
  np.testing.assert_allclose(out_G, expected, rtol=1e-5, atol=1e-5)
  weights = np.array(turns) if over_turns else np.ones(len(turns))
  assert abs((out_G * weights).sum()) < 1e-4 * max(
    1, np.abs(out_G).max(initial=0)
  )
