"""The written-out backward passes against XLA's own, and how they compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.models import products


def _arrays(*shapes, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [
    jax.random.normal(key, shape).astype(dtype)
    for key, shape in zip(keys, shapes, strict=True)
  ]


@pytest.mark.parametrize("outputs", [3, 16], ids=["narrower", "wider"])
def test_gradients_of_a_linear_layer_equal_those_of_autodiff(outputs):
  x, weight, d_out = _arrays((2, 5, 8), (8, outputs), (2, 5, outputs))

  def gradients(layer):
    return jax.vjp(layer, x, weight)[1](d_out)

  for ours, xla in zip(
    gradients(products.linear), gradients(jnp.matmul), strict=True
  ):
    np.testing.assert_allclose(ours, xla, rtol=1e-5, atol=1e-5)


def test_a_bfloat16_layer_sums_in_float32_and_keeps_its_types():
  x, weight = _arrays((4, 512), (512, 6), dtype=jnp.bfloat16)
  out, pull = jax.vjp(products.linear, x, weight)
  assert out.dtype == jnp.float32
  exact = np.asarray(x, np.float64) @ np.asarray(weight, np.float64)
  np.testing.assert_allclose(out, exact, rtol=1e-4, atol=1e-4)
  (d_out,) = _arrays((4, 6))
  d_x, d_weight = pull(d_out)
  assert d_x.dtype == d_weight.dtype == jnp.bfloat16
  rounded = np.asarray(d_out.astype(jnp.bfloat16), np.float64)
  exact = np.asarray(x, np.float64).T @ rounded
  np.testing.assert_allclose(
    np.asarray(d_weight, np.float64), exact, rtol=2**-8, atol=1e-6
  )


def test_gradients_of_the_gate_equal_those_of_autodiff():
  gate, up, d_out = _arrays((7, 9), (7, 9), (7, 9))
  # Far out, where a sigmoid is exactly 0 or 1.
  gate = gate.at[0, 0].set(200.0).at[0, 1].set(-200.0)

  def gradients(layer):
    return jax.vjp(layer, gate, up)[1](d_out)

  def plain(gate, up):
    return jax.nn.silu(gate) * up

  for ours, xla in zip(
    gradients(products.gated), gradients(plain), strict=True
  ):
    np.testing.assert_allclose(ours, xla, rtol=1e-5, atol=1e-6)


def test_the_gate_keeps_two_arrays_for_its_backward_pass():
  gate, up = _arrays((7, 9), (7, 9))
  _, pull = jax.vjp(products.gated, gate, up)
  kept = [leaf for leaf in jax.tree.leaves(pull) if jnp.shape(leaf) == (7, 9)]
  assert len(kept) == 2


def test_gradients_of_weights_transpose_the_narrow_operand():
  """The wide one is what made a training step slow: see the module."""
  x, narrow, wide = _arrays((512, 64), (64, 256), (256, 64))

  def loss(weights):
    hidden = products.gated(*(products.linear(x, w) for w in weights[:2]))
    return jnp.sum(jnp.square(products.linear(hidden, weights[2])))

  program = jax.jit(jax.grad(loss)).lower([narrow, narrow + 1, wide]).compile()
  assert "f32[64,512]" in program.as_text()
  assert "f32[256,512]" not in program.as_text()
