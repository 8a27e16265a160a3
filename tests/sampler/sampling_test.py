"""Sampling rules against a numpy oracle that sorts and normalises naively."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_jax.sampler import sampling

_VOCAB = 50
_DRAWS = 40_000
_sample = jax.jit(sampling.sample)
_uniforms = jax.jit(sampling.uniforms)


def _logits(seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=_VOCAB).astype(np.float32) * 2


def _oracle(logits, temperature, top_k, top_p, min_p) -> np.ndarray:
  """Probabilities of the truncated distribution, float64."""
  scaled = logits.astype(np.float64) / temperature
  probabilities = np.exp(scaled - scaled.max())
  probabilities /= probabilities.sum()
  if top_k:
    kth = np.sort(probabilities)[-min(top_k, len(probabilities))]
    probabilities = np.where(probabilities >= kth, probabilities, 0)
    probabilities /= probabilities.sum()
  if top_p < 1:
    order = np.argsort(-probabilities)
    mass = np.cumsum(probabilities[order])
    last = int(np.argmax(mass >= top_p))
    keep = np.zeros(len(probabilities), bool)
    keep[order[: last + 1]] = True
    probabilities = np.where(keep, probabilities, 0)
    probabilities /= probabilities.sum()
  if min_p:
    keep = probabilities >= min_p * probabilities.max()
    probabilities = np.where(keep, probabilities, 0)
    probabilities /= probabilities.sum()
  return probabilities


def _draw(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
  draws = _DRAWS
  key_words = np.stack(
    [np.arange(draws, dtype=np.uint32), np.full(draws, 7, np.uint32)], axis=1
  )
  uniform = _uniforms(key_words, np.arange(draws, dtype=np.int32) % 5)
  token, logprob = _sample(
    jnp.broadcast_to(logits, (draws, len(logits))),
    uniform,
    np.full(draws, temperature, np.float32),
    np.full(draws, top_k, np.int32),
    np.full(draws, top_p, np.float32),
    np.full(draws, min_p, np.float32),
  )
  return np.asarray(token), np.asarray(logprob)


@pytest.mark.parametrize(
  "knobs",
  [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"temperature": 0.7, "top_k": 12, "top_p": 0.9, "min_p": 0.02},
  ],
  ids=str,
)
def test_frequencies_and_logprobs_match_the_oracle(knobs):
  logits = _logits()
  full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **knobs}
  expected = _oracle(logits, **full)
  token, logprob = _draw(logits, **knobs)
  counts = np.bincount(token, minlength=_VOCAB)
  assert counts[expected == 0].sum() == 0
  # Chi-square with small cells pooled; the draws are fixed by their keys, so
  # the bound (five standard deviations of the statistic) can not flake.
  big = expected * _DRAWS >= 5
  seen = np.append(counts[big], counts[~big].sum())
  wanted = np.append(expected[big], expected[~big].sum()) * _DRAWS
  seen, wanted = seen[wanted > 0], wanted[wanted > 0]
  statistic = ((seen - wanted) ** 2 / wanted).sum()
  freedom = max(1, len(wanted) - 1)
  assert statistic < freedom + 5 * np.sqrt(2 * freedom)
  np.testing.assert_allclose(logprob, np.log(expected[token]), atol=1e-5)


def test_greedy_ignores_truncation_and_reports_temperature_one():
  logits = np.stack([_logits(seed) for seed in range(64)])
  rows = len(logits)
  token, logprob = _sample(
    logits,
    np.linspace(0, 0.999, rows, dtype=np.float32),
    np.zeros(rows, np.float32),
    np.full(rows, 2, np.int32),
    np.full(rows, 0.1, np.float32),
    np.full(rows, 0.9, np.float32),
  )
  best = logits.argmax(axis=1)
  np.testing.assert_array_equal(token, best)
  expected = jax.nn.log_softmax(logits)[np.arange(rows), best]
  np.testing.assert_allclose(logprob, expected, atol=1e-6)


def test_ties_at_a_threshold_are_all_kept():
  logits = np.full(_VOCAB, -2.0, np.float32)
  logits[:4] = [3.0, 1.0, 1.0, 1.0]
  token, logprob = _draw(logits, top_k=2)
  assert set(token.tolist()) == {0, 1, 2, 3}
  weights = np.exp(logits[:4])
  np.testing.assert_allclose(
    logprob, np.log(weights / weights.sum())[token], atol=1e-6
  )


def test_a_top_k_beyond_the_vocabulary_keeps_everything():
  logits = _logits()
  plain = _draw(logits)
  wide = _draw(logits, top_k=_VOCAB + 10)
  np.testing.assert_array_equal(plain[0], wide[0])
  np.testing.assert_allclose(plain[1], wide[1], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  uniform=st.sampled_from([0.0, 1e-9, 0.5, 1 - 2**-24, 1.0]),
  spread=st.sampled_from([0.1, 3.0, 60.0]),
)
def test_a_token_without_weight_is_never_drawn(seed, uniform, spread):
  logits = np.random.default_rng(seed).normal(size=(64, 50)) * spread
  logits[:, ::3] = -1e9
  logits[0] = -1e9
  logits[0, 4] = 0  # a single token left
  token, logprob = _sample(
    logits.astype(np.float32),
    np.full(64, uniform, np.float32),
    np.ones(64, np.float32),
    np.zeros(64, np.int32),
    np.ones(64, np.float32),
    np.zeros(64, np.float32),
  )
  chosen = logits[np.arange(64), np.asarray(token)]
  assert (chosen - logits.max(axis=1) > -104).all()  # exp() is not 0
  assert np.isfinite(np.asarray(logprob)).all()
  assert token[0] == 4


@pytest.mark.parametrize("vocab", [1, 2, 65, 264])
def test_the_inverse_cdf_is_monotone_and_reaches_both_ends(vocab):
  logits = np.zeros((201, vocab), np.float32)
  token, logprob = _sample(
    logits,
    np.linspace(0, 1, 201, dtype=np.float32),
    np.ones(201, np.float32),
    np.zeros(201, np.int32),
    np.ones(201, np.float32),
    np.zeros(201, np.float32),
  )
  token = np.asarray(token)
  assert token[0] == 0 and token[-1] == vocab - 1
  assert (np.diff(token) >= 0).all()
  expected = np.floor(np.linspace(0, 1, 201)[:-1] * vocab)
  assert (np.abs(token[:-1] - expected) <= 1).all()
  np.testing.assert_allclose(logprob, -np.log(vocab), atol=1e-6)


def test_a_row_does_not_see_its_neighbours():
  """Bits of a row: same at every index, whatever the other rows ask for."""
  rng = np.random.default_rng(3)
  rows = 12
  logits = rng.normal(size=(rows, 264)).astype(np.float32)
  uniform = rng.random(rows, np.float32)
  knobs = [
    np.where(rng.random(rows) < 0.3, 0, rng.random(rows) + 0.3),
    rng.integers(0, 20, rows),
    rng.random(rows) * 0.5 + 0.5,
    np.where(rng.random(rows) < 0.5, 0, 0.05),
  ]
  kinds = (np.float32, np.int32, np.float32, np.float32)
  knobs = [knob.astype(kind) for knob, kind in zip(knobs, kinds, strict=True)]
  token, logprob = _sample(logits, uniform, *knobs)
  for _ in range(6):
    order = rng.permutation(rows)
    again = _sample(logits[order], uniform[order], *(k[order] for k in knobs))
    np.testing.assert_array_equal(
      np.asarray(again[0]), np.asarray(token)[order]
    )
    np.testing.assert_array_equal(
      np.asarray(again[1]), np.asarray(logprob)[order]
    )
  # A plain row beside plain rows (no truncation anywhere in the batch).
  alone = _sample(
    logits,
    uniform,
    np.ones(rows, np.float32),
    *(
      np.full(rows, value, kind)
      for value, kind in ((0, np.int32), (1, np.float32), (0, np.float32))
    ),
  )
  mixed = _sample(
    logits,
    uniform,
    np.ones(rows, np.float32),
    *(
      np.where(np.arange(rows) == 0, off, knob).astype(kind)
      for off, knob, kind in (
        (0, 4, np.int32),
        (1, 0.5, np.float32),
        (0, 0.1, np.float32),
      )
    ),
  )
  assert alone[0][0] == mixed[0][0]
  assert alone[1][0] == mixed[1][0]


def test_uniforms_depend_on_key_and_index_only():
  keys = np.array([[1, 2], [3, 4], [1, 2], [1, 3]], np.uint32)
  first = np.asarray(_uniforms(keys, np.array([0, 0, 1, 0], np.int32)))
  assert len(set(first.tolist())) == 4
  second = np.asarray(
    _uniforms(keys[::-1].copy(), np.array([0, 1, 0, 0], np.int32))
  )
  np.testing.assert_array_equal(second[::-1], first)
  assert ((first >= 0) & (first < 1)).all()


def test_uniforms_are_uniform_over_keys_and_over_positions():
  count = 20_000
  index = np.arange(count, dtype=np.int32)
  keys = np.stack([index.astype(np.uint32)] * 2, axis=1)
  for draws in (
    _uniforms(keys, np.zeros(count, np.int32)),
    _uniforms(np.full((count, 2), 9, np.uint32), index),
  ):
    histogram = np.bincount((np.asarray(draws) * 20).astype(int), minlength=20)
    statistic = ((histogram - count / 20) ** 2 / (count / 20)).sum()
    assert statistic < 19 + 5 * np.sqrt(2 * 19)
