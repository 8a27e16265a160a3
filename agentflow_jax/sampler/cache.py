"""The KV cache: fixed slots, stored in blocks of one prefill chunk.

Flow: programs read whole blocks of many slots (decode) or of one slot
(prefill) and write a prefilled block, copied blocks, or decoded tokens. The
block axis comes before the slot axis, so the same block of every slot is one
contiguous read, and keys are stored with the token axis last: both attention
products then run as plain batched matmuls on what was read.

A slot's content is only ever masked, never cleared: reading past what a slot
holds gives stale but finite numbers.

Axes: L layer, J block, S slot, K key/value head, H head dim, C token within a
block, T decode step, R row of the decode batch (one per slot).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class KVCache:
  """Keys and values of every slot; donated from program to program.

  Example: 6 layers, 64 slots of 10 blocks of 128 tokens, 2 heads of 32:
  `keys_LJSKHC` is [6, 10, 64, 2, 32, 128].
  """

  keys_LJSKHC: Any
  values_LJSKCH: Any

  @property
  def block_tokens(self) -> int:
    return self.keys_LJSKHC.shape[-1]


def read_block(cache: KVCache, slot, block):
  """(keys_LKHC, values_LKCH) of one block of one slot."""

  def read(array):
    layers, _, _, *rest = array.shape
    at = (0, block, slot, 0, 0, 0)
    return jax.lax.dynamic_slice(array, at, (layers, 1, 1, *rest))[:, 0, 0]

  return read(cache.keys_LJSKHC), read(cache.values_LJSKCH)


def write_block(cache: KVCache, slot, block, keys_LKHC, values_LKCH) -> KVCache:
  """Overwrites one whole block of one slot."""
  at = (0, block, slot, 0, 0, 0)
  return KVCache(
    keys_LJSKHC=jax.lax.dynamic_update_slice(
      cache.keys_LJSKHC, keys_LKHC[:, None, None], at
    ),
    values_LJSKCH=jax.lax.dynamic_update_slice(
      cache.values_LJSKCH, values_LKCH[:, None, None], at
    ),
  )


def copy_blocks(cache: KVCache, source, target, blocks) -> KVCache:
  """Copies the first `blocks` blocks (traced) of one slot to another."""

  return jax.lax.fori_loop(
    0,
    blocks,
    lambda block, cache: write_block(
      cache, target, block, *read_block(cache, source, block)
    ),
    cache,
  )


def swap_blocks(cache: KVCache, a, b, blocks) -> KVCache:
  """Exchanges the first `blocks` blocks (traced) of two slots."""

  def swap(block, state):
    cache, of_a = state
    cache = write_block(cache, a, block, *read_block(cache, b, block))
    cache = write_block(cache, b, block, *of_a)
    # The next block is read here, after the writes and into the loop's state:
    # a read that XLA could fuse into a later write would copy the whole cache.
    return cache, read_block(cache, a, block + 1)

  return jax.lax.fori_loop(0, blocks, swap, (cache, read_block(cache, a, 0)))[0]


def append_decoded(
  cache: KVCache, keys_LRKTH, values_LRKTH, slot, start_R, first_R
) -> KVCache:
  """Writes the T tokens that each row decoded from position `start` on.

  The rows are the slots from `slot` on. Only tokens from index `first` on are
  written; T writes nothing. The window may straddle two blocks.
  """
  blocks, block_tokens = cache.keys_LJSKHC.shape[1], cache.block_tokens
  rows, steps = keys_LRKTH.shape[1], keys_LRKTH.shape[3]
  position_RT = start_R[:, None] + jnp.arange(steps)
  written_RT = jnp.arange(steps) >= first_R[:, None]
  # Out of range is dropped.
  block_RT = jnp.where(written_RT, position_RT // block_tokens, blocks)
  slot_RT = jnp.broadcast_to(slot + jnp.arange(rows)[:, None], (rows, steps))
  offset_RT = position_RT % block_tokens

  def to_updates(array_LRKTH):
    return jnp.transpose(array_LRKTH, (1, 3, 0, 2, 4))  # R, T, L, K, H

  return KVCache(
    keys_LJSKHC=cache.keys_LJSKHC.at[:, block_RT, slot_RT, :, :, offset_RT].set(
      to_updates(keys_LRKTH), mode="drop", unique_indices=True
    ),
    values_LJSKCH=cache.values_LJSKCH.at[
      :, block_RT, slot_RT, :, offset_RT
    ].set(to_updates(values_LRKTH), mode="drop", unique_indices=True),
  )
