"""The products of a layer, with backward passes written out.

For a weight's gradient, autodiff of `x @ weight` transposes the gradient of
the output. Where that is the wider operand (gate, up) XLA fuses the
transposition, on a CPU, into the loop that computes it and reads several
arrays by columns: two fifths of a training step. Here the narrower operand is
transposed. Gradients are products in the type of the activations, as the
forward pass is, summed in float32.

Only reverse-mode derivatives exist.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def linear(x, weight):
  """float32 [..., O]: x [..., I] times weight [I, O], both of one type.

  The caller rounds to the type of x before anything else reads the result;
  the backward pass rounds the result's gradient so.
  """
  return _product(x, weight)


def _linear_forward(x, weight):
  return _product(x, weight), (x, weight)


def _linear_backward(saved, d_out):
  x, weight = saved
  d_out = d_out.astype(x.dtype)
  d_x = _product(d_out, weight.T)
  x_RI = x.reshape(-1, x.shape[-1])
  d_out_RO = d_out.reshape(-1, d_out.shape[-1])
  if x_RI.shape[1] <= d_out_RO.shape[1]:
    d_weight = _product(x_RI.T, d_out_RO)
  else:
    d_weight = _product(d_out_RO.T, x_RI).T
  return d_x.astype(x.dtype), d_weight.astype(weight.dtype)


linear.defvjp(_linear_forward, _linear_backward)


@jax.custom_vjp
def gated(gate, up):
  """silu(gate) * up; keeps its two arguments only for the backward pass."""
  return jax.nn.silu(gate) * up


def _gated_forward(gate, up):
  return gated(gate, up), (gate, up)


def _gated_backward(saved, d_out):
  gate, up = saved
  gain = jax.nn.sigmoid(gate)
  d_gate = d_out * up * gain * (1 + gate * (1 - gain))
  return d_gate, d_out * gate * gain


gated.defvjp(_gated_forward, _gated_backward)


def _product(left, right):
  # bf16 inputs with a float32 accumulator are also the fast path on CPU.
  return jnp.matmul(left, right, preferred_element_type=jnp.float32)
