"""What one device runs to prefill: `extend` over a list of operations.

Flow: operations run strictly in order. Each copies a prefix from another slot,
or exchanges two slots, and then computes one chunk of prompt. decoding.py has
the other program; programs.py compiles both.

Shards need nothing of each other. Only where another mesh axis brings
collectives into the network (`Geometry.lockstep`) do they agree on every loop
bound first, and a shard with less to do repeats rounds that change nothing.

Axes: P shard (always 1 here), R operation, C token of a chunk, L layer, K
key/value head, H head dim.
"""

import jax
import jax.numpy as jnp

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import transformer
from agentflow_jax.sampler import cache as cache_lib
from agentflow_jax.sampler import cached_attention, layout

Op = layout.Op

# The layers of networks up to this size are taken apart once per dispatch.
# Bigger ones gain less and compile for long.
_UNSTACK_PARAMETERS = 50_000_000


def taken_apart(arch: architecture_lib.Architecture, params):
  """`params` as the programs' loops use them: a small network's unstacked.

  Prefill then also drops what follows the last layer's keys and values: a sixth
  of the work for six layers.
  """
  if arch.parameter_count() > _UNSTACK_PARAMETERS:
    return params
  return transformer.unstack(params)


def extend(arch, geometry, params, cache, count_P, ops_PR, tokens_PRC):
  """Runs the first `count` operations in order.

  Args:
    arch: static.
    geometry: static.
    params: of the network.
    cache: this device's slots.
    count_P: int32 [1].
    ops_PR: int32 [1, R, len(Op)].
    tokens_PRC: int32 [1, R, C], padded with any valid id.

  Returns:
    (cache, ()).
  """
  ops_R, tokens_RC = ops_PR[0], tokens_PRC[0]
  block_tokens = geometry.block_tokens
  carry = _empty_block(arch, block_tokens)
  params = taken_apart(arch, params)

  def chunk(op, tokens_C, cache):
    slot, block = op[Op.SLOT], jnp.maximum(op[Op.BLOCK], 0)
    position_1C = (block * block_tokens + jnp.arange(block_tokens))[None]
    _, (keys_LKHC, values_LKCH) = transformer.forward(
      arch,
      params,
      tokens_C[None],
      position_1C,
      cached_attention.prefill_attend(
        cache, slot, block, agree(geometry, block)
      ),
      carry,
    )
    if geometry.lockstep:
      keys_LKHC, values_LKCH = jax.tree.map(
        lambda new, old: jnp.where(op[Op.BLOCK] >= 0, new, old),
        (keys_LKHC, values_LKCH),
        cache_lib.read_block(cache, slot, block),
      )
    return cache_lib.write_block(cache, slot, block, keys_LKHC, values_LKCH)

  def operation(index, cache):
    op = ops_R[index]
    cache = cache_lib.copy_blocks(
      cache, op[Op.SOURCE], op[Op.SLOT], op[Op.COPY_BLOCKS]
    )
    cache = cache_lib.swap_blocks(
      cache, op[Op.SOURCE], op[Op.SLOT], op[Op.SWAP_BLOCKS]
    )
    # A loop of zero or one rounds, because a conditional may copy the cache.
    return jax.lax.fori_loop(
      0,
      agree(geometry, op[Op.BLOCK] >= 0),
      lambda _, cache: chunk(op, tokens_RC[index], cache),
      cache,
    )

  count = agree(geometry, count_P[0])
  return jax.lax.fori_loop(0, count, operation, cache), ()


def _empty_block(arch, block_tokens: int):
  """Zeros for one chunk's (keys_LKHC, values_LKCH)."""
  lead = (arch.num_layers, arch.num_kv_heads)
  return (
    jnp.zeros((*lead, arch.head_dim, block_tokens), arch.dtype),
    jnp.zeros((*lead, block_tokens, arch.head_dim), arch.dtype),
  )


def agree(geometry: layout.Geometry, bound):
  """int32 loop bound: the shard's own or, in lockstep, the largest of all."""
  bound = jnp.asarray(bound, jnp.int32)
  return jax.lax.pmax(bound, layout.DATA_AXIS) if geometry.lockstep else bound
