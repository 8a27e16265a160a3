import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.learner import statistics as statistics_lib


def _histogram(values, counts=None):
  values = jnp.asarray(values, jnp.float32)
  counts = jnp.ones_like(values) if counts is None else jnp.asarray(counts)
  return statistics_lib.histogram(values[None], counts[None])


@pytest.mark.parametrize("value", [1e-7, 3e-4, 0.02, 0.5, 1.0, 1.7, 30.0])
def test_quantile_is_an_upper_bound_within_19_percent(value):
  got = statistics_lib.quantile(_histogram([value]), 0.99)
  assert value <= got * (1 + 1e-6) <= value * 2**0.25 * (1 + 2e-6)


def test_quantile_of_many_values():
  values = np.random.default_rng(0).exponential(0.01, 5000)
  exact = np.quantile(values, 0.99)
  got = statistics_lib.quantile(_histogram(values), 0.99)
  assert exact <= got <= 1.19 * exact


def test_histogram_counts_and_ignores_padding():
  counts_K = _histogram([0.5, 0.5, 7.0, 1e-12], [1.0, 1.0, 0.0, 1.0])
  assert float(counts_K.sum()) == 3
  assert float(counts_K[0]) == 1
  assert statistics_lib.quantile(counts_K, 0.99) == 0.5
  assert statistics_lib.quantile(_histogram([0.0, 0.0]), 0.99) == 0.0
  assert statistics_lib.quantile(_histogram([1e9]), 0.99) > 30


def test_merge_adds_sums_and_keeps_maxima():
  def one(a, b):
    return statistics_lib.Statistics(
      sums={"a": jnp.float32(a)}, maxima={"b": jnp.float32(b)}
    )

  merged = statistics_lib.merge(one(1, 5), one(2, 3))
  assert float(merged.sums["a"]) == 3
  assert float(merged.maxima["b"]) == 5


def test_host_metrics_by_hand():
  sums = {
    "policy_loss": -0.5,
    "kl": 0.3,
    "weight": 0.6,
    "tokens": 8.0,
    "ratio": 8.8,
    "drift_outside": 2.0,
    "clip_low": 1.0,
    "clip_high": 3.0,
    "drift": 0.4,
    "drift_histogram": np.asarray(_histogram([0.5] * 8)),
  }
  totals = statistics_lib.Statistics(
    sums=sums, maxima={"ratio": 1.5, "drift": 0.5}
  )
  metrics = statistics_lib.host_metrics(totals)
  expected = {
    "policy_loss": -0.5,
    "kl": 0.5,
    "tokens": 8,
    "clip_fraction": 0.5,
    "clip_fraction_low": 0.125,
    "clip_fraction_high": 0.375,
    "ratio_mean": 1.1,
    "ratio_max": 1.5,
    "drift_outside": 0.25,
    "drift_mean": 0.05,
    "drift_max": 0.5,
    "drift_p99": 0.5,
  }
  assert metrics == pytest.approx(expected)
