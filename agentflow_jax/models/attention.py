"""Attention of the learner: token i sees token j iff j <= i < subtree_end[j].

The one integer per key expresses causal rows, ordinary packing and token trees
(design section 6): `subtree_end[j]` is the row index just past everything that
continues after j.

Axes: B row, T token, N query heads, K key/value heads, H head dim.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.models import (
  blockwise,
  mesh_axes,
  remat,
  staircase,
  tpu_attention,
)

DENSE_LIMIT_TOKENS = 2048
_MASKED = -1e30  # finite, so that a fully masked (padding) row stays finite


def tree_mask(subtree_end_BT):
  """bool [B, T query, T key], the rule itself."""
  index_T = jnp.arange(subtree_end_BT.shape[1])
  causal = index_T[None, :, None] >= index_T[None, None, :]
  return causal & (index_T[None, :, None] < subtree_end_BT[:, None, :])


def dense_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
  """Softmax attention with an explicit mask; float32 scores.

  Args:
    q_BTNH: queries; N is a multiple of K.
    k_BSKH: keys.
    v_BSKH: values.
    mask_BTS: bool, True where query t may see key s.

  Returns:
    [B, T, N, H] in the dtype of q.
  """
  b, t, n, h = q_BTNH.shape
  k = k_BSKH.shape[2]
  q = q_BTNH.reshape(b, t, k, n // k, h)
  scores = jnp.einsum(
    "btkgh,bskh->bkgts", q, k_BSKH, preferred_element_type=jnp.float32
  )
  scores = jnp.where(mask_BTS[:, None, None], scores * h**-0.5, _MASKED)
  weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
  out = jnp.einsum(
    "bkgts,bskh->btkgh", weights, v_BSKH, preferred_element_type=jnp.float32
  )
  return out.reshape(b, t, n, h).astype(q_BTNH.dtype)


def tree_attend(subtree_end_BT):
  """An `Attend` for `transformer.forward` over packed rows (no cache).

  Rows up to `DENSE_LIMIT_TOKENS` use the dense form, or its staircase on a
  CPU. Longer ones need memory linear in the row: the Pallas kernels on TPUs,
  the blockwise form elsewhere. The numbers agree to rounding.
  """
  mesh = jax.typeof(subtree_end_BT).sharding.mesh  # what jit was told
  platform = mesh_axes.platform(mesh)
  form: Any
  if subtree_end_BT.shape[1] > DENSE_LIMIT_TOKENS:
    # Each device visits what its own rows need.
    axes = mesh_axes.split_axes(mesh)
    # On a CPU small blocks, which visit less of what no query sees.
    block = 64 if platform == "cpu" else 256
    form = functools.partial(blockwise.blockwise_attention, block_tokens=block)
    if platform == "tpu":
      # XLA can not split a kernel, not even over one device.
      axes, form = set(mesh.axis_names), tpu_attention.tpu_attention
    form = _on_each_device(form, mesh, axes)
  elif platform == "cpu":
    form = staircase.staircase_attention
  else:
    mask_BTT = tree_mask(subtree_end_BT)

    def dense(q_BTNH, k_BTKH, v_BTKH, _):
      return remat.attended(dense_attention(q_BTNH, k_BTKH, v_BTKH, mask_BTT))

    form = dense

  def attend(layer, q_BTNH, k_BTKH, v_BTKH, carry):
    del layer
    return form(q_BTNH, k_BTKH, v_BTKH, subtree_end_BT), carry

  return attend


def _on_each_device(attend, mesh, axes: set[str]):
  """`attend` on each device's rows and heads, along `axes` of the mesh."""
  if not axes:
    return attend

  def on_each_device(q_BTNH, k_BTKH, v_BTKH, subtree_end_BT):
    rows = mesh_axes.row_axes(q_BTNH.shape[0], mesh)
    heads = "tensor" if "tensor" in axes else None
    per_head = jax.P(rows, None, heads, None)
    return jax.shard_map(
      attend,
      mesh=mesh,
      in_specs=(per_head, per_head, per_head, jax.P(rows, None)),
      out_specs=per_head,
      axis_names=axes,
      check_vma=False,  # kernels do not say how their results vary
    )(q_BTNH, k_BTKH, v_BTKH, subtree_end_BT)

  return on_each_device
