"""The tree rule by hand, and the other forms against the dense one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_examples import inputs, random_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_jax.models import attention, blockwise, staircase


def _blockwise(q, k, v, end):
  return blockwise.blockwise_attention(q, k, v, end, block_tokens=16)


_FORMS = pytest.mark.parametrize(
  "form", [_blockwise, staircase.staircase_attention]
)


def test_tree_mask_by_hand():
  """Root 0, children 1 (leaf 2) and 3; then another tree 4."""
  mask = attention.tree_mask(jnp.array([[4, 3, 3, 4, 5]]))[0]
  want = [
    [1, 0, 0, 0, 0],
    [1, 1, 0, 0, 0],
    [1, 1, 1, 0, 0],
    [1, 0, 0, 1, 0],
    [0, 0, 0, 0, 1],
  ]
  np.testing.assert_array_equal(mask, np.array(want, bool))


def test_dense_attention_by_hand():
  """Two query heads share a key head; scale 1/sqrt(H); masked keys are out."""
  q = jnp.array([[[[2.0, 0.0]] * 2]])  # one token, two heads
  k = jnp.array([[[[1.0, 0.0]], [[3.0, 0.0]], [[9.0, 9.0]]]])
  v = jnp.array([[[[1.0, 0.0]], [[0.0, 1.0]], [[5.0, 5.0]]]])
  mask = jnp.array([[[True, True, False]]])
  weight = 1 / (1 + np.exp(4 / np.sqrt(2)))
  got = attention.dense_attention(q, k, v, mask)
  np.testing.assert_allclose(got[0, 0], [[weight, 1 - weight]] * 2, rtol=1e-6)


def test_head_n_reads_key_head_n_over_group():
  rng = np.random.default_rng(0)
  q, k, v, _ = inputs(rng, 1, 5, heads=6, kv_heads=3)
  mask = attention.tree_mask(jnp.full((1, 5), 5))
  got = attention.dense_attention(q, k, v, mask)
  for head in range(6):
    one = attention.dense_attention(
      q[:, :, head : head + 1],
      k[:, :, head // 2 : head // 2 + 1],
      v[:, :, head // 2 : head // 2 + 1],
      mask,
    )
    np.testing.assert_allclose(got[:, :, head], one[:, :, 0], atol=1e-6)


@_FORMS
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 4))
def test_forms_equal_dense_on_any_tree(form, seed, rows):
  rng = np.random.default_rng(seed)
  length = 70
  q, k, v, weight = inputs(rng, 4, length)
  q, k, v, weight = (x.at[rows:].set(0) for x in (q, k, v, weight))
  end = jnp.asarray(np.stack([random_tree(length, rng) for _ in range(4)]))
  want, want_grads = _dense_and_gradients(q, k, v, end, weight)
  got, got_grads = _and_gradients(form, q, k, v, end, weight)
  np.testing.assert_allclose(got, want, atol=1e-5, rtol=0)
  for one, other in zip(got_grads, want_grads, strict=True):
    scale = max(1.0, float(jnp.abs(other).max()))
    np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=0)


@jax.jit
def _dense_and_gradients(q, k, v, end, weight):
  def loss(q, k, v):
    out = attention.dense_attention(q, k, v, attention.tree_mask(end))
    return jnp.sum(out * weight), out

  grads, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
  return out, grads


@functools.partial(jax.jit, static_argnums=0)
def _and_gradients(form, q, k, v, end, weight):
  def loss(q, k, v):
    out = form(q, k, v, end)
    return jnp.sum(out * weight), out

  grads, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
  return out, grads


@_FORMS
@pytest.mark.parametrize("length", [1, 16, 33, 290])
def test_lengths_around_the_block_size(form, length):
  rng = np.random.default_rng(length)
  q, k, v, weight = inputs(rng, 2, length)
  end = jnp.asarray(np.stack([random_tree(length, rng, 5) for _ in range(2)]))
  want, want_grads = _dense_and_gradients(q, k, v, end, weight)
  got, got_grads = _and_gradients(form, q, k, v, end, weight)
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, atol=1e-5, rtol=0)
  for one, other in zip(got_grads, want_grads, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-5)


@_FORMS
def test_bfloat16_stays_near_float32_and_keeps_its_type(form):
  rng = np.random.default_rng(0)
  q, k, v, weight = inputs(rng, 1, 48)
  end = jnp.asarray(random_tree(48, rng))[None]
  want, want_grads = _dense_and_gradients(q, k, v, end, weight)
  half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
  got, got_grads = _and_gradients(form, *half, end, weight)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    got.astype(jnp.float32), want, atol=0.05, rtol=0.05
  )
  for one, other in zip(got_grads, want_grads, strict=True):
    assert one.dtype == jnp.bfloat16
    error = jnp.linalg.norm(one.astype(jnp.float32) - other)
    assert error < 0.02 * jnp.linalg.norm(other)


@_FORMS
def test_padding_that_sees_nothing_is_finite_and_harmless(form):
  rng = np.random.default_rng(0)
  q, k, v, weight = inputs(rng, 1, 40)
  end = np.zeros(40, np.int32)
  end[:20] = 20  # the rest is padding that not even sees itself
  weight = weight.at[:, 20:].set(0)
  got, grads = _and_gradients(form, q, k, v, jnp.asarray(end)[None], weight)
  want, want_grads = _dense_and_gradients(
    q, k, v, jnp.asarray(end)[None], weight
  )
  assert np.isfinite(got).all()
  np.testing.assert_allclose(got[:, :20], want[:, :20], atol=1e-5)
  for one, other in zip(grads, want_grads, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_blocks_that_nobody_sees_are_not_visited():
  """Four separate sequences of one block each: four visits, not ten."""
  end = np.repeat(np.arange(16, 80, 16, dtype=np.int32), 16)
  blocks = jnp.asarray(end).reshape(4, 1, 16)
  _, order, count = blockwise._visits(blocks)
  np.testing.assert_array_equal(count, [1, 1, 1, 1])
  np.testing.assert_array_equal(order[:, 0], [0, 1, 2, 3])
  causal = jnp.full((4, 1, 16), 64)
  np.testing.assert_array_equal(blockwise._visits(causal)[2], [1, 2, 3, 4])
  # A shared first block, then branches of one block.
  end[:16] = 64
  _, order, count = blockwise._visits(jnp.asarray(end).reshape(4, 1, 16))
  np.testing.assert_array_equal(count, [1, 2, 2, 2])
  np.testing.assert_array_equal(order[3, :2], [0, 3])


def test_tree_attend_changes_form_above_the_limit(monkeypatch):
  rng = np.random.default_rng(0)
  monkeypatch.setattr(attention, "DENSE_LIMIT_TOKENS", 32)
  calls = []
  real = blockwise.blockwise_attention

  def counted(*args, block_tokens):
    calls.append((args[0].shape[1], block_tokens))
    return real(*args, block_tokens=block_tokens)

  monkeypatch.setattr(blockwise, "blockwise_attention", counted)
  for length in (32, 33):
    q, k, v, _ = inputs(rng, 1, length)
    end = jnp.asarray(random_tree(length, rng))[None]
    out, carry = attention.tree_attend(end)(0, q, k, v, "carry")
    want = attention.dense_attention(q, k, v, attention.tree_mask(end))
    np.testing.assert_allclose(out, want, atol=1e-5, rtol=0)
    assert carry == "carry"
  assert calls == [(33, 64)]  # on a CPU


def test_the_staircase_keeps_no_square_for_the_backward_pass():
  """Temporary bytes of six layers' gradients grow little with each layer."""

  def temporary_bytes(form, layers):
    shape = jax.ShapeDtypeStruct((2, 256, 4, 16), jnp.float32)
    kv = jax.ShapeDtypeStruct((2, 256, 2, 16), jnp.float32)
    end = jax.ShapeDtypeStruct((2, 256), jnp.int32)

    def loss(q, k, v, end):
      def layer(q, _):
        return form(q, k, v, end), None

      return jnp.sum(jax.lax.scan(layer, q, length=layers)[0] ** 2)

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, kv, kv, end)
    return compiled.compile().memory_analysis().temp_size_in_bytes

  def dense(q, k, v, end):
    return attention.dense_attention(q, k, v, attention.tree_mask(end))

  square = 2 * 4 * 256 * 256 * 4
  grown = {}
  for form in (dense, staircase.staircase_attention):
    grown[form] = temporary_bytes(form, 6) - temporary_bytes(form, 2)
  assert grown[dense] >= 4 * square
  assert grown[staircase.staircase_attention] < square


def test_memory_at_32k_is_linear_and_holds_no_square():
  """Compiled temporary bytes of forward + backward at T = 32k."""

  def temporary_bytes(length):
    shape = jax.ShapeDtypeStruct((1, length, 4, 16), jnp.float32)
    kv = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    end = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def loss(q, k, v, end):
      return jnp.sum(attention.tree_attend(end)(0, q, k, v, None)[0] ** 2)

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, kv, kv, end)
    return compiled.compile().memory_analysis().temp_size_in_bytes

  tokens = 32768
  most = temporary_bytes(tokens)
  # Even one byte per pair would be 1 GiB.
  assert most < tokens**2 / 8
  assert most / temporary_bytes(tokens // 4) < 4.5
