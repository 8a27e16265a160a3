"""Tree attention as Pallas kernels for TPUs, forward and backward.

The same rule and the same numbers as `blockwise.py`: token i sees token j iff
`j <= i < subtree_end[j]`. For each row of the batch, lists in scalar memory
name the blocks that can see each other; a grid step that is past its list does
nothing and fetches nothing. So shared prefixes and other branches cost what
they hold, not T * T.

What one grid step computes is in `tpu_kernels.py`; here are the grids:

  forward   per query block, over its key blocks -> out, lse
  d_query   per query block, over its key blocks
  d_key     per key block, over the heads that share it and its query blocks

Axes: B row, N query heads, K key/value heads, G = N / K, T token, H head dim,
C blocks, S tokens of a block.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from agentflow_jax.models import remat, tpu_kernels

_LANES = 128
_BLOCK_TOKENS = 512


def tpu_attention(
  q_BTNH,
  k_BTKH,
  v_BTKH,
  subtree_end_BT,
  *,
  block_tokens: int = _BLOCK_TOKENS,
  interpret: bool = False,
):
  """Equal to `dense_attention` under `tree_mask`; float32 softmax.

  Args:
    q_BTNH: queries; N is a multiple of K.
    k_BTKH: keys.
    v_BTKH: values.
    subtree_end_BT: int32; key j is seen by queries j <= i < subtree_end[j].
    block_tokens: S, a multiple of 128; shorter rows use a smaller block.
    interpret: run on any backend, slowly, for tests.

  Returns:
    [B, T, N, H] in the dtype of q. A query that sees no key gets zeros.
  """
  t = q_BTNH.shape[1]
  block = min(block_tokens, -(-t // _LANES) * _LANES)
  pad = -t % block

  def head_first(x):
    x = jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0)))
    return jnp.transpose(x, (0, 2, 1, 3))

  q_BNTH, k_BKTH, v_BKTH = map(head_first, (q_BTNH, k_BTKH, v_BTKH))
  end_BT = jnp.pad(subtree_end_BT, ((0, 0), (0, pad)))  # nobody sees padding
  out_BNTH: Any = _attention(block, interpret, q_BNTH, k_BKTH, v_BKTH, end_BT)
  return jnp.transpose(out_BNTH, (0, 2, 1, 3))[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(block, interpret, q_BNTH, k_BKTH, v_BKTH, end_BT):
  return _forward(block, interpret, q_BNTH, k_BKTH, v_BKTH, end_BT)[0]


def _forward(block, interpret, q_BNTH, k_BKTH, v_BKTH, end_BT):
  """(out_BNTH, log-sum-exp of the scores, float32 [B, N, 1, T])."""
  b, n, t, h = q_BNTH.shape
  groups, blocks = n // k_BKTH.shape[1], t // block
  order, count = _visits(end_BT, block)

  def key_block(b, n, c, v, order, count):
    del count
    return b, n // groups, order[b, c, v], 0

  def end_block(b, n, c, v, order, count):
    del n, count
    return b, order[b, c, v], 0

  per_query = pl.BlockSpec((1, 1, block, h), _own_block)
  per_key = pl.BlockSpec((1, 1, block, h), key_block)
  return pl.pallas_call(
    tpu_kernels.forward,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(b, n, blocks, blocks),
      in_specs=[
        per_query,
        per_key,
        per_key,
        pl.BlockSpec((1, block, 1), end_block),
      ],
      out_specs=[per_query, pl.BlockSpec((1, 1, 1, block), _own_lanes)],
      scratch_shapes=[
        pltpu.VMEM((h, block), jnp.float32),
        pltpu.VMEM((1, block), jnp.float32),
        pltpu.VMEM((1, block), jnp.float32),
      ],
    ),
    out_shape=[
      jax.ShapeDtypeStruct(q_BNTH.shape, q_BNTH.dtype),
      jax.ShapeDtypeStruct((b, n, 1, t), jnp.float32),
    ],
    compiler_params=_sequential(parallel=3, sequential=1),
    interpret=interpret,
  )(order, count, q_BNTH, k_BKTH, v_BKTH, end_BT[..., None])


def _forward_saving(block, interpret, q_BNTH, k_BKTH, v_BKTH, end_BT):
  out_BNTH, lse_BN1T = map(
    remat.attended,
    _forward(block, interpret, q_BNTH, k_BKTH, v_BKTH, end_BT),
  )
  return out_BNTH, (q_BNTH, k_BKTH, v_BKTH, end_BT, out_BNTH, lse_BN1T)


def _backward(block, interpret, saved, d_out_BNTH):
  q_BNTH, k_BKTH, v_BKTH, end_BT, out_BNTH, lse_BN1T = saved
  d_out_BNTH = d_out_BNTH.astype(q_BNTH.dtype)
  inner_BN1T = jnp.sum(
    d_out_BNTH.astype(jnp.float32) * out_BNTH.astype(jnp.float32), axis=-1
  )[:, :, None]
  order, count = _visits(end_BT, block)
  operands = (
    q_BNTH,
    k_BKTH,
    v_BKTH,
    end_BT[..., None],
    d_out_BNTH,
    lse_BN1T,
    inner_BN1T,
  )
  d_q_BNTH = _d_query(block, interpret, order, count, operands)
  order, count = _visits(end_BT, block, by_key=True)
  d_k_BKTH, d_v_BKTH = _d_key(block, interpret, order, count, operands)
  return d_q_BNTH, d_k_BKTH, d_v_BKTH, None


_attention.defvjp(_forward_saving, _backward)


def _d_query(block, interpret, order, count, operands):
  q_BNTH, k_BKTH = operands[:2]
  b, n, t, h = q_BNTH.shape
  groups, blocks = n // k_BKTH.shape[1], t // block

  def key_block(b, n, c, v, order, count):
    del count
    return b, n // groups, order[b, c, v], 0

  def end_block(b, n, c, v, order, count):
    del n, count
    return b, order[b, c, v], 0

  per_query = pl.BlockSpec((1, 1, block, h), _own_block)
  per_key = pl.BlockSpec((1, 1, block, h), key_block)
  lanes = pl.BlockSpec((1, 1, 1, block), _own_lanes)
  return pl.pallas_call(
    tpu_kernels.d_query,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(b, n, blocks, blocks),
      in_specs=[
        per_query,
        per_key,
        per_key,
        pl.BlockSpec((1, block, 1), end_block),
        per_query,
        lanes,
        lanes,
      ],
      out_specs=per_query,
      scratch_shapes=[pltpu.VMEM((block, h), jnp.float32)],
    ),
    out_shape=jax.ShapeDtypeStruct(q_BNTH.shape, q_BNTH.dtype),
    compiler_params=_sequential(parallel=3, sequential=1),
    interpret=interpret,
  )(order, count, *operands)


def _d_key(block, interpret, order, count, operands):
  q_BNTH, k_BKTH = operands[:2]
  b, n, t, h = q_BNTH.shape
  heads, blocks = k_BKTH.shape[1], t // block
  groups = n // heads

  def query_block(b, k, c, g, v, order, count):
    del count
    return b, k * groups + g, order[b, c, v], 0

  def query_lanes(b, k, c, g, v, order, count):
    del count
    return b, k * groups + g, 0, order[b, c, v]

  def own_block(b, k, c, g, v, order, count):
    del g, v, order, count
    return b, k, c, 0

  def own_end(b, k, c, g, v, order, count):
    del k, g, v, order, count
    return b, c, 0

  per_query = pl.BlockSpec((1, 1, block, h), query_block)
  per_key = pl.BlockSpec((1, 1, block, h), own_block)
  lanes = pl.BlockSpec((1, 1, 1, block), query_lanes)
  return pl.pallas_call(
    tpu_kernels.d_key,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(b, heads, blocks, groups, blocks),
      in_specs=[
        per_query,
        per_key,
        per_key,
        pl.BlockSpec((1, block, 1), own_end),
        per_query,
        lanes,
        lanes,
      ],
      out_specs=[per_key, per_key],
      scratch_shapes=[pltpu.VMEM((block, h), jnp.float32)] * 2,
    ),
    out_shape=[jax.ShapeDtypeStruct(k_BKTH.shape, k_BKTH.dtype)] * 2,
    compiler_params=_sequential(parallel=3, sequential=2),
    interpret=interpret,
  )(order, count, *operands)


def _visits(end_BT, block: int, *, by_key: bool = False):
  """Which key blocks each query block visits, per row; `by_key` the reverse.

  Returns:
    (blocks in visiting order [B, C, C], their number [B, C]). Past its number
    a list repeats its last block, which then is not fetched again.
  """
  b, t = end_BT.shape
  blocks = t // block
  index_C = jnp.arange(blocks, dtype=jnp.int32)
  last_end_BC = end_BT.reshape(b, blocks, block).max(axis=-1)
  seen_BCC = (index_C[None, None] <= index_C[None, :, None]) & (
    last_end_BC[:, None] > index_C[None, :, None] * block
  )
  if by_key:
    seen_BCC = jnp.swapaxes(seen_BCC, 1, 2)
  count_BC = seen_BCC.sum(axis=2, dtype=jnp.int32)
  order_BCC = jnp.argsort(~seen_BCC, axis=2, stable=True).astype(jnp.int32)
  last_BC1 = jnp.maximum(count_BC - 1, 0)[..., None]
  slot_BCC = jnp.minimum(index_C[None, None], last_BC1)
  return jnp.take_along_axis(order_BCC, slot_BCC, axis=2), count_BC


def _own_block(b, n, c, v, order, count):
  del v, order, count
  return b, n, c, 0


def _own_lanes(b, n, c, v, order, count):
  del v, order, count
  return b, n, 0, c


def _sequential(*, parallel: int, sequential: int):
  """The last grid axes accumulate into one output block, in their order."""
  return pltpu.CompilerParams(
    dimension_semantics=("parallel",) * parallel + ("arbitrary",) * sequential
  )
