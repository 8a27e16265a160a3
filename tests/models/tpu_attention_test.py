"""The TPU kernels: numbers in interpret mode, and compiled for real chips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_examples import inputs, random_tree

from agentflow_jax.models import attention, sharding, tpu_attention
from agentflow_jax.testing import tpu_topology

_BLOCK = 128
_needs_libtpu = pytest.mark.skipif(
  not tpu_topology.available(), reason="libtpu is not installed ([tpu] extra)"
)


@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradients(kernel, q, k, v, end, weight):
  def loss(q, k, v):
    if kernel:
      out = tpu_attention.tpu_attention(
        q, k, v, end, block_tokens=_BLOCK, interpret=True
      )
    else:
      out = attention.dense_attention(q, k, v, attention.tree_mask(end))
    return jnp.sum(out.astype(jnp.float32) * weight), out

  gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
  return out, *gradients


# Two full blocks; not a multiple of a block; less than one.
@pytest.mark.parametrize("length", [256, 300, 33])
def test_equals_dense_on_random_trees(length):
  rng = np.random.default_rng(length)
  q, k, v, weight = inputs(rng, 2, length)
  end = jnp.asarray(np.stack([random_tree(length, rng) for _ in range(2)]))
  want = _value_and_gradients(False, q, k, v, end, weight)
  got = _value_and_gradients(True, q, k, v, end, weight)
  for one, other in zip(got, want, strict=True):
    assert one.dtype == other.dtype
    scale = max(1.0, float(jnp.abs(other).max()))
    np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=0)


def test_bfloat16_keeps_its_type_and_unseen_padding_is_zero():
  rng = np.random.default_rng(0)
  q, k, v, weight = inputs(rng, 1, 300)
  end = np.zeros(300, np.int32)
  end[:120] = random_tree(120, rng)  # the rest not even sees itself
  end = jnp.asarray(end)[None]
  weight = weight.at[:, 120:].set(0)
  half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
  got = _value_and_gradients(True, *half, end, weight)
  want = _value_and_gradients(False, q, k, v, end, weight)
  assert not np.asarray(got[0][:, 120:]).any()
  for one, other in zip(got, want, strict=True):
    assert one.dtype == jnp.bfloat16
    error = jnp.linalg.norm((one.astype(jnp.float32) - other)[:, :120])
    assert error < 0.02 * jnp.linalg.norm(other[:, :120])
  assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in got)


def test_blocks_that_nobody_sees_are_neither_computed_nor_fetched():
  """A shared first block, then three branches of one block each."""
  end = np.repeat(np.array([2, 3, 4], np.int32), _BLOCK) * _BLOCK
  end = np.concatenate([np.full(_BLOCK, 4 * _BLOCK, np.int32), end])[None]
  order, count = tpu_attention._visits(jnp.asarray(end), _BLOCK)
  np.testing.assert_array_equal(count, [[1, 2, 2, 2]])
  np.testing.assert_array_equal(
    order[0], [[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 2, 2], [0, 3, 3, 3]]
  )
  order, count = tpu_attention._visits(jnp.asarray(end), _BLOCK, by_key=True)
  np.testing.assert_array_equal(count, [[4, 1, 1, 1]])
  np.testing.assert_array_equal(order[0, 0], [0, 1, 2, 3])
  np.testing.assert_array_equal(order[0, 2], [2, 2, 2, 2])
  # A row of padding has lists of length 0, not a missing block.
  order, count = tpu_attention._visits(jnp.zeros((1, 256), jnp.int32), _BLOCK)
  assert not order.any()
  assert not count.any()


@_needs_libtpu
@pytest.mark.parametrize(
  ("topology", "dtype", "axes"),
  [
    ("v5e:2x2", jnp.bfloat16, (2, 1, 2)),
    ("v5p:2x2x1", jnp.bfloat16, (1, 2, 2)),
    ("v5p:2x2x1", jnp.float32, (4, 1, 1)),
  ],
)
def test_compiles_for_real_chips_from_here(topology, dtype, axes):
  """Through the dispatch, split over rows and heads, both directions."""
  mesh = sharding.make_mesh(*axes, devices=tpu_topology.devices(topology))
  length = attention.DENSE_LIMIT_TOKENS + 128
  rows = sharding.batch_sharding(mesh)

  def shape(heads):
    return jax.ShapeDtypeStruct((4, length, heads, 64), dtype, sharding=rows)

  end = jax.ShapeDtypeStruct((4, length), jnp.int32, sharding=rows)

  def loss(q, k, v, end):
    out, _ = attention.tree_attend(end)(0, q, k, v, None)
    return out.astype(jnp.float32).sum()

  compiled = (
    jax.jit(jax.grad(loss, (0, 1, 2)))
    .lower(shape(4), shape(2), shape(2), end)
    .compile()
  )
  # Forward, d_query and d_key.
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3


def test_without_libtpu_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(tpu_topology, "available", lambda: False)
  with pytest.raises(tpu_topology.errors.UserError, match=r"\[tpu\]"):
    tpu_topology.devices("v5e:2x2")
