"""Hand-made numbers for every term; the assembled loss is objectives_test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.learner import losses

_CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def _row(*values):
  return jnp.array([values], jnp.float32)


def _gradient(function, x):
  """d sum(function) / dx, entry by entry."""
  return jax.grad(lambda x: function(x).sum())(x)


def test_token_ratio():
  ratio = losses.token_ratio(_row(-1.0, -2.0, -0.5), _row(-1.0, -1.0, -1.0))
  np.testing.assert_allclose(ratio, [[1.0, 0.36787944, 1.64872127]], rtol=1e-6)


def test_log_ratio_beyond_20_is_finite_and_silent():
  current = _row(0.0, -500.0, -1.0)
  behavior = _row(-500.0, 0.0, -1.0)
  ratio = losses.token_ratio(current, behavior)
  np.testing.assert_allclose(ratio, [[np.exp(20), np.exp(-20), 1]], rtol=1e-6)
  gradient = _gradient(lambda c: losses.token_ratio(c, behavior), current)
  np.testing.assert_array_equal(gradient, [[0, 0, 1]])


@pytest.mark.parametrize(
  ("ratio", "advantage", "value", "slope"),
  [
    (1.0, 2.0, 2.0, 2.0),
    (1.0, -2.0, -2.0, -2.0),
    (1.25, 2.0, 2.5, 2.0),  # inside 1 + clip_high
    (1.5, 2.0, 2.6, 0.0),  # above it: clipped
    (1.5, -2.0, -3.0, -2.0),  # a bad token that grew: never clipped
    (0.85, -2.0, -1.7, -2.0),  # inside 1 - clip_low
    (0.5, -2.0, -1.6, 0.0),  # below it: clipped
    (0.5, 2.0, 1.0, 2.0),  # a good token that shrank: never clipped
    (0.5, 0.0, 0.0, 0.0),
  ],
)
def test_surrogate_clips_each_side_with_its_own_bound(
  ratio, advantage, value, slope
):
  def objective(ratio):
    return losses.surrogate(ratio, _row(advantage), dual_clip=0.0, **_CLIP)

  np.testing.assert_allclose(objective(_row(ratio)), [[value]], rtol=1e-6)
  np.testing.assert_allclose(
    _gradient(objective, _row(ratio)), [[slope]], rtol=1e-6
  )


def test_clipped_flags_are_where_the_gradient_vanishes():
  ratio = _row(0.5, 0.5, 1.0, 1.5, 1.5, 0.81, 1.29)
  advantage = _row(1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0)
  low, high = losses.clipped(ratio, advantage, **_CLIP)
  np.testing.assert_array_equal(low, [[0, 1, 0, 0, 0, 0, 0]])
  np.testing.assert_array_equal(high, [[0, 0, 0, 1, 0, 0, 0]])
  gradient = _gradient(
    lambda r: losses.surrogate(r, advantage, dual_clip=0.0, **_CLIP), ratio
  )
  np.testing.assert_array_equal(gradient == 0, low | high)


def test_dual_clip_bounds_only_bad_tokens():
  ratio, advantage = _row(5.0, 2.0, 5.0), _row(-1.0, -1.0, 1.0)

  def objective(ratio):
    return losses.surrogate(ratio, advantage, dual_clip=3.0, **_CLIP)

  np.testing.assert_allclose(objective(ratio), [[-3.0, -2.0, 1.3]], rtol=1e-6)
  np.testing.assert_array_equal(_gradient(objective, ratio), [[0, -1, 0]])


def test_truncation_caps_the_weight_and_keeps_the_direction():
  behavior = _row(-3.0, -1.0)
  current = _row(-1.0, -1.5)  # ratios 7.389 and 0.607

  def weight(current):
    return losses.truncate_ratio(losses.token_ratio(current, behavior), 2.0)

  expected = [[2.0, 0.60653066]]
  np.testing.assert_allclose(weight(current), expected, rtol=1e-6)
  # d/dlogp of rho is rho itself; truncated it is min(rho, cap), not 0.
  np.testing.assert_allclose(_gradient(weight, current), expected, rtol=1e-6)


def test_truncated_weight_is_a_capped_constant():
  old, new = _row(-3.0, -1.0), _row(-1.0, -1.5)
  weight = lambda new: losses.truncated_weight(new, old, 2.0)
  np.testing.assert_allclose(weight(new), [[2.0, 0.60653066]], rtol=1e-6)
  np.testing.assert_array_equal(_gradient(weight, new), [[0, 0]])


def test_kl_estimators():
  # r = reference - current = -1, 0, 0.5
  current, reference = _row(-1.0, -1.0, -1.5), _row(-2.0, -1.0, -1.0)
  expected = {
    "k1": [[1.0, 0.0, -0.5]],
    "k2": [[0.5, 0.0, 0.125]],
    "k3": [[0.36787944, 0.0, 0.14872127]],
  }
  slopes = {
    "k1": [[1.0, 1.0, 1.0]],
    "k2": [[1.0, 0.0, -0.5]],
    "k3": [[1 - 0.36787944, 0.0, 1 - 1.64872127]],
  }
  for name in expected:

    def estimate(current, name=name):
      return losses.kl(current, reference, name)

    np.testing.assert_allclose(
      estimate(current), expected[name], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
      _gradient(estimate, current), slopes[name], rtol=1e-5, atol=1e-7
    )


def test_k3_keeps_small_differences_and_stops_at_10():
  small = losses.kl(_row(-1.0), _row(-1.0 + 1e-3), "k3")
  np.testing.assert_allclose(small, [[5.0017e-7]], rtol=2e-3)
  large = _row(-30.0, -4.0)
  np.testing.assert_allclose(
    losses.kl(large, _row(0.0, 0.0), "k3"), [[10.0, 10.0]]
  )
  slope = _gradient(lambda c: losses.kl(c, _row(0.0, 0.0), "k3"), large)
  np.testing.assert_array_equal(slope, [[0, 0]])


def test_unknown_estimator():
  with pytest.raises(ValueError, match="k4"):
    losses.kl(_row(0.0), _row(0.0), "k4")


# Samples 0 (2 tokens), 1 (1 token), then two padding entries.
_SAMPLE = jnp.array([[0, 0, 1, -1, -1]])


def test_sequence_ratio_is_the_geometric_mean_of_its_sample():
  current = _row(-1.0, -2.0, -1.0, -9.0, -9.0)
  behavior = _row(-1.5, -1.7, -1.4, 0.0, 0.0)
  ratio = losses.sequence_ratio(current, behavior, _SAMPLE)
  first = np.exp((0.5 - 0.3) / 2)
  np.testing.assert_allclose(
    ratio, [[first, first, np.exp(0.4), 1, 1]], rtol=1e-6
  )


def test_sequence_ratio_spreads_the_gradient_over_the_sample():
  current = _row(-1.0, -2.0, -1.0, -9.0, -9.0)
  behavior = _row(-1.5, -1.7, -1.4, 0.0, 0.0)
  weight = _row(0.5, 0.5, 1.0, 0.0, 0.0)  # 1 / len: GSPO's sequence mean

  def objective(current):
    return weight * losses.sequence_ratio(current, behavior, _SAMPLE)

  first = np.exp(0.1)
  np.testing.assert_allclose(
    _gradient(objective, current),
    [[first / 2, first / 2, np.exp(0.4), 0, 0]],
    rtol=1e-6,
  )


def test_sequence_ids_are_per_row():
  current = jnp.array([[-1.0], [-2.0]])
  behavior = jnp.array([[-2.0], [-2.0]])
  ratio = losses.sequence_ratio(current, behavior, jnp.array([[0], [0]]))
  np.testing.assert_allclose(ratio, [[np.e], [1.0]], rtol=1e-6)


@pytest.mark.parametrize(
  ("arrays", "error"),
  [
    ((jnp.zeros(3), jnp.zeros(3)), ValueError),
    ((jnp.zeros((1, 3)), jnp.zeros((2, 3))), ValueError),
    ((jnp.zeros((1, 3)), jnp.zeros((1, 3), jnp.bfloat16)), TypeError),
    ((jnp.zeros((1, 3), int), jnp.zeros((1, 3), int)), TypeError),
  ],
)
def test_wrong_shapes_and_dtypes_never_broadcast(arrays, error):
  with pytest.raises(error):
    losses.token_ratio(*arrays)
  with pytest.raises(error):
    losses.kl(*arrays, "k3")
  with pytest.raises(error):
    losses.surrogate(*arrays, dual_clip=0.0, **_CLIP)
  with pytest.raises(error):
    losses.sequence_ratio(*arrays, jnp.zeros((1, 3), int))


def test_sample_ids_must_match_the_entries():
  with pytest.raises(ValueError, match="sample_BE"):
    losses.sequence_ratio(_row(0.0), _row(0.0), jnp.zeros((1, 2), int))
