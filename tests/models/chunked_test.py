"""A feed-forward network in chunks of tokens equals the whole of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.models import chunked, sharding

_D, _F = 8, 32


def _function(weights, x_BTD):
  return jax.nn.silu(x_BTD @ weights["gate_DF"]) @ weights["down_FD"]


def _inputs(rows, tokens):
  keys = jax.random.split(jax.random.key(0), 4)
  weights = {
    "gate_DF": jax.random.normal(keys[0], (_D, _F)),
    "down_FD": jax.random.normal(keys[1], (_F, _D)),
  }
  x, d_out = (jax.random.normal(key, (rows, tokens, _D)) for key in keys[2:])
  return weights, x, d_out


def _gradients(run):
  """(out, gradients of weights and x) for the gradient of out."""

  @jax.jit
  def both(weights, x, d_out):
    out, gradient = jax.vjp(run, weights, x)
    return out, gradient(d_out)

  return both


def _chunked(tokens, mesh=None):
  def run(weights, x):
    own = jax.typeof(x).sharding.mesh if mesh is None else mesh
    return chunked.in_chunks(_function, weights, x, tokens=tokens, mesh=own)

  return run


@pytest.mark.parametrize("tokens", [1, 5, 16, 24, 25])
def test_any_chunk_gives_the_same_numbers(tokens):
  """24 tokens: chunks that fit, chunks that are filled up, one chunk."""
  inputs = _inputs(3, 24)
  want = _gradients(_function)(*inputs)
  got = _gradients(_chunked(tokens))(*inputs)
  for one, other in zip(
    jax.tree.leaves(got), jax.tree.leaves(want), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_what_lies_between_exists_for_a_chunk_only():
  weights, x, d_out = _inputs(1, 4096)

  def temporary_bytes(run):
    compiled = _gradients(run).lower(weights, x, d_out).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  between = 4096 * _F * 4
  assert temporary_bytes(_function) > 2 * between
  assert temporary_bytes(_chunked(64)) < between


def test_sums_over_devices_are_made_once():
  """Not after every chunk: their number is that of one chunk."""
  mesh = sharding.make_mesh(8, 1, 1)
  weights, x, d_out = _inputs(8, 32)
  rows = sharding.batch_sharding(mesh)
  weights = jax.device_put(weights, jax.NamedSharding(mesh, jax.P()))
  x, d_out = jax.device_put((x, d_out), rows)

  @functools.cache
  def compiled(tokens):
    return _gradients(_chunked(tokens, mesh)).lower(weights, x, d_out).compile()

  # In the body of a loop an all-reduce is written once and made many times.
  for tokens in (4, 32):
    text = compiled(tokens).as_text()
    assert " all-reduce(" in text
    for body in text.split("\n\n"):
      assert " all-reduce(" not in body or "ENTRY" in body
  want = _gradients(_function)(*_inputs(8, 32))
  for one, other in zip(
    jax.tree.leaves(compiled(4)(weights, x, d_out)),
    jax.tree.leaves(want),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-5)


def test_bfloat16_gradients_are_summed_in_float32():
  """A one, then 256 parts of it, each too small for bfloat16 to add to 1."""
  x = jnp.full((1, 257, 1), 1 / 256, jnp.bfloat16).at[0, 0].set(1.0)
  weights = {"scale_D": jnp.ones((1,), jnp.bfloat16)}

  def run(weights, x):
    return chunked.in_chunks(
      lambda weights, x: x * weights["scale_D"],
      weights,
      x,
      tokens=1,
      mesh=jax.typeof(x).sharding.mesh,
    )

  d_weights, _ = jax.vjp(run, weights, x)[1](jnp.ones_like(x))
  assert float(d_weights["scale_D"][0]) == 2.0
  assert float(x[0, 0, 0] + x[0, 1, 0]) == 1.0
