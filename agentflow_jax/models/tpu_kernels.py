"""What one grid step of the TPU attention kernels computes, in its memory.

Flow: one block of queries, one of keys -> scores under the tree rule ->
accumulators in scratch memory, written out after the last visit. forward is an
online softmax; the backward kernels recompute the weights from its log-sum-exp.

Scores are kept transposed (keys down, queries across): what belongs to a query
(running maximum, lse) is then one row of lanes, and what belongs to a key
(subtree_end) one column, and neither is ever transposed.

The arguments are references, in the order of the grids in `tpu_attention.py`:
the visiting lists (`order`, `count`), inputs, outputs, scratch.

Axes: S tokens of a block, H head dim.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

_MASKED = -1e30
_TINY = float(jnp.finfo(jnp.float32).tiny)


def forward(order, count, q, k, v, end, out, lse, total_HS, top_1S, sum_1S):
  """Grid (row, query head, query block, visit)."""
  b, c, visit = pl.program_id(0), pl.program_id(2), pl.program_id(3)

  @pl.when(visit == 0)
  def _():
    total_HS[...] = jnp.zeros_like(total_HS)
    top_1S[...] = jnp.full_like(top_1S, _MASKED)
    sum_1S[...] = jnp.zeros_like(sum_1S)

  @pl.when(visit < count[b, c])
  def _():
    scores = _scores(q[0, 0], k[0, 0], end[0], c, order[b, c, visit])
    top = jnp.maximum(top_1S[...], scores.max(axis=0, keepdims=True))
    weights = _seen_exp(scores, top)
    decay = jnp.exp(top_1S[...] - top)
    top_1S[...] = top
    sum_1S[...] = sum_1S[...] * decay + weights.sum(axis=0, keepdims=True)
    weighted = _dot(v[0, 0], weights, (0, 0))  # [H, S]
    total_HS[...] = total_HS[...] * decay + weighted

  @pl.when(visit == pl.num_programs(3) - 1)
  def _():
    total = jnp.maximum(sum_1S[...], _TINY)
    out[0, 0] = (total_HS[...] / total).T.astype(out.dtype)
    lse[0, 0] = top_1S[...] + jnp.log(total)


def d_query(order, count, q, k, v, end, d_out, lse, inner, d_q, total_SH):
  """Grid (row, query head, query block, visit); inner = sum(out * d_out)."""
  b, c, visit = pl.program_id(0), pl.program_id(2), pl.program_id(3)

  @pl.when(visit == 0)
  def _():
    total_SH[...] = jnp.zeros_like(total_SH)

  @pl.when(visit < count[b, c])
  def _():
    scores = _scores(q[0, 0], k[0, 0], end[0], c, order[b, c, visit])
    weights = _seen_exp(scores, lse[0, 0])
    d_weights = _dot(v[0, 0], d_out[0, 0], (1, 1))
    d_scores = weights * (d_weights - inner[0, 0])
    total_SH[...] += _dot(d_scores, k[0, 0], (0, 0))

  @pl.when(visit == pl.num_programs(3) - 1)
  def _():
    d_q[0, 0] = (total_SH[...] * q.shape[-1] ** -0.5).astype(d_q.dtype)


def d_key(order, count, q, k, v, end, d_out, lse, inner, d_k, d_v, k_SH, v_SH):
  """Grid (row, key head, key block, query head of it, visit)."""
  b, c = pl.program_id(0), pl.program_id(2)
  group, visit = pl.program_id(3), pl.program_id(4)

  @pl.when((group == 0) & (visit == 0))
  def _():
    k_SH[...] = jnp.zeros_like(k_SH)
    v_SH[...] = jnp.zeros_like(v_SH)

  @pl.when(visit < count[b, c])
  def _():
    scores = _scores(q[0, 0], k[0, 0], end[0], order[b, c, visit], c)
    weights = _seen_exp(scores, lse[0, 0])
    d_weights = _dot(v[0, 0], d_out[0, 0], (1, 1))
    d_scores = weights * (d_weights - inner[0, 0])
    v_SH[...] += _dot(weights, d_out[0, 0], (1, 0))
    k_SH[...] += _dot(d_scores, q[0, 0], (1, 0))

  last = (group == pl.num_programs(3) - 1) & (visit == pl.num_programs(4) - 1)

  @pl.when(last)
  def _():
    d_k[0, 0] = (k_SH[...] * q.shape[-1] ** -0.5).astype(d_k.dtype)
    d_v[0, 0] = v_SH[...].astype(d_v.dtype)


def _scores(q_SH, k_SH, end_S1, query_block, key_block):
  """Transposed scaled scores [keys, queries], `_MASKED` where not seen."""
  block = q_SH.shape[0]
  shape = (block, block)
  query = query_block * block + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  key = key_block * block + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
  scores = _dot(k_SH, q_SH, (1, 1)) * q_SH.shape[1] ** -0.5
  return jnp.where((query >= key) & (query < end_S1), scores, _MASKED)


def _seen_exp(scores, shift_1S):
  """exp(scores - shift), 0 where masked even if a whole column is."""
  weights = jnp.exp(scores - shift_1S)
  return jnp.where(scores > _MASKED / 2, weights, 0.0)


def _dot(left, right, axes):
  """Contracts one axis of each in the narrower type, summed in float32."""
  dtype, precision = jnp.float32, jax.lax.Precision.HIGHEST
  if jnp.bfloat16 in (left.dtype, right.dtype):
    dtype, precision = jnp.bfloat16, None
  return jax.lax.dot_general(
    left.astype(dtype),
    right.astype(dtype),
    (((axes[0],), (axes[1],)), ((), ())),
    precision=precision,
    preferred_element_type=jnp.float32,
  )
