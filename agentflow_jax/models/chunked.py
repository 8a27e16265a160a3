"""A function of single tokens, over a few of them at a time.

What lies between a feed-forward network's products is several times as wide as
what goes in and out. In chunks it never exists for a whole row, and on a CPU it
stays in a core's cache. The backward pass computes each chunk again: for a
feed-forward network two products in eleven, paid for by memory that is neither
written nor read.

Every device takes the chunks of its own rows, and what the weights' gradients
add up to is summed over devices once, after the last chunk. Only reverse-mode
derivatives exist.

Axes: B row, T token, D model; C chunks, S tokens of a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.models import mesh_axes

# (weights, x_BSD) -> out_BSD, each token by itself.
TokenFunction = Callable[[Any, Any], Any]


def in_chunks(
  function: TokenFunction, weights: Any, x_BTD, *, tokens: int, mesh
):
  """`function(weights, x_BTD)`, at most `tokens` tokens of a row at a time.

  Args:
    function: what it sums over features that a mesh splits over "tensor" is
      summed over devices here.
    weights: pytree of arrays, with names as `mesh_axes.param_spec` reads them;
      not split over "fsdp".
    x_BTD: rows.
    tokens: > 0.
    mesh: which splits the rows, and may split weights over "tensor".
  """
  run = functools.partial(_in_chunks, function, tokens)
  split = mesh_axes.split_axes(mesh)
  if not split:
    return run(weights, x_BTD)
  rows = jax.P(mesh_axes.row_axes(x_BTD.shape[0], mesh))

  def on_each_device(weights, x_BTD):
    out_BTD = run(weights, x_BTD)
    return jax.lax.psum(out_BTD, "tensor") if "tensor" in split else out_BTD

  return jax.shard_map(
    on_each_device,
    mesh=mesh,
    in_specs=(mesh_axes.gathered_specs(weights, split), rows),
    out_specs=rows,
    axis_names=split,
    check_vma=False,  # a custom derivative does not say how it varies
  )(weights, x_BTD)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_chunks(function, tokens, weights, x_BTD):
  _, out_CBSD = jax.lax.scan(
    lambda _, x_BSD: (None, function(weights, x_BSD)),
    None,
    _split(x_BTD, tokens),
  )
  return _join(out_CBSD, x_BTD.shape[1])


def _forward(function, tokens, weights, x_BTD):
  return _in_chunks(function, tokens, weights, x_BTD), (weights, x_BTD)


def _backward(function, tokens, saved, d_out_BTD):
  weights, x_BTD = saved

  def chunk(d_weights, scanned):
    x_BSD, d_out_BSD = scanned
    _, gradient = jax.vjp(function, weights, x_BSD)
    own, d_x_BSD = gradient(d_out_BSD)
    return jax.tree.map(_add, d_weights, own), d_x_BSD

  zeros = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), weights)
  d_weights, d_x_CBSD = jax.lax.scan(
    chunk, zeros, (_split(x_BTD, tokens), _split(d_out_BTD, tokens))
  )
  d_weights = jax.tree.map(lambda d, w: d.astype(w.dtype), d_weights, weights)
  return d_weights, _join(d_x_CBSD, x_BTD.shape[1])


_in_chunks.defvjp(_forward, _backward)


def _add(total, own):
  return total + own.astype(jnp.float32)


def _split(x_BTD, tokens: int):
  """[C, B, S, D]: equal chunks, so that as few tokens as possible are added."""
  b, t, d = x_BTD.shape
  chunks = -(-t // tokens)
  size = -(-t // chunks)
  x_BTD = jnp.pad(x_BTD, ((0, 0), (0, chunks * size - t), (0, 0)))
  return jnp.moveaxis(x_BTD.reshape(b, chunks, size, d), 1, 0)


def _join(x_CBSD, tokens: int):
  c, b, s, d = x_CBSD.shape
  return jnp.moveaxis(x_CBSD, 0, 1).reshape(b, c * s, d)[:, :tokens]
