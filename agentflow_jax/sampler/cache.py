"""The KV cache: fixed slots, stored in pages of a few prefill chunks.

Flow: programs read whole pages of many slots (decode) or blocks of one slot
(prefill) and write a prefilled block, copied blocks, or decoded tokens. A block
is one prefill chunk, a page the blocks that decode reads at once. The page axis
comes before the slot axis, so the same page of every slot is one contiguous
read, and keys are stored with the token axis last: both attention products then
run as plain batched matmuls on what was read.

A slot's content is only ever masked, never cleared: reading past what a slot
holds gives stale but finite numbers.

Axes: L layer, J page, S slot, K key/value head, H head dim, X token within a
page, C token within a block, T decode step, R row of the decode batch (one per
slot).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class KVCache:
  """Keys and values of every slot; donated from program to program.

  Example: 6 layers, 64 slots of 5 pages of two blocks of 128 tokens, 2 heads
  of 32: `keys_LJSKHX` is [6, 5, 64, 2, 32, 256], `block_tokens` 128.
  """

  keys_LJSKHX: Any
  values_LJSKXH: Any
  block_tokens: int = dataclasses.field(metadata={"static": True})

  @property
  def page_tokens(self) -> int:
    return self.keys_LJSKHX.shape[-1]

  def place(self, block) -> tuple[Any, Any]:
    """(page, index of the block's first token in the page)."""
    per_page = self.page_tokens // self.block_tokens
    return block // per_page, block % per_page * self.block_tokens


def read_block(cache: KVCache, slot, block, layer=None):
  """(keys_LKHC, values_LKCH) of one block of one slot.

  With `layer`, (keys_KHC, values_KCH) of that layer.
  """
  page, token = cache.place(block)
  first = 0 if layer is None else layer

  def read(array, at, *tail):
    layers, _, _, kv_heads, *_ = array.shape
    layers = layers if layer is None else 1
    size = (layers, 1, 1, kv_heads, *tail)
    found = jax.lax.dynamic_slice(array, (first, page, slot, 0, *at), size)
    return found[:, 0, 0] if layer is None else found[0, 0, 0]

  block_tokens, head_dim = cache.block_tokens, cache.values_LJSKXH.shape[-1]
  return (
    read(cache.keys_LJSKHX, (0, token), head_dim, block_tokens),
    read(cache.values_LJSKXH, (token, 0), block_tokens, head_dim),
  )


def write_block(cache: KVCache, slot, block, keys_LKHC, values_LKCH) -> KVCache:
  """Overwrites one whole block of one slot."""
  page, token = cache.place(block)
  write = jax.lax.dynamic_update_slice
  return dataclasses.replace(
    cache,
    keys_LJSKHX=write(
      cache.keys_LJSKHX, keys_LKHC[:, None, None], (0, page, slot, 0, 0, token)
    ),
    values_LJSKXH=write(
      cache.values_LJSKXH,
      values_LKCH[:, None, None],
      (0, page, slot, 0, token, 0),
    ),
  )


def read_pages(cache: KVCache, layer, page, slot, rows: int):
  """(keys_RKHX, values_RKXH) of one page of `rows` slots from `slot` on."""

  def read(array):
    at = (layer, page, slot, 0, 0, 0)
    return jax.lax.dynamic_slice(array, at, (1, 1, rows, *array.shape[3:]))

  return read(cache.keys_LJSKHX)[0, 0], read(cache.values_LJSKXH)[0, 0]


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
  written; T writes nothing. The window may straddle two pages.
  """
  pages, page_tokens = cache.keys_LJSKHX.shape[1], cache.page_tokens
  rows, steps = keys_LRKTH.shape[1], keys_LRKTH.shape[3]
  position_RT = start_R[:, None] + jnp.arange(steps)
  written_RT = jnp.arange(steps) >= first_R[:, None]
  # Out of range is dropped.
  page_RT = jnp.where(written_RT, position_RT // page_tokens, pages)
  slot_RT = jnp.broadcast_to(slot + jnp.arange(rows)[:, None], (rows, steps))
  token_RT = position_RT % page_tokens

  def to_updates(array_LRKTH):
    return jnp.transpose(array_LRKTH, (1, 3, 0, 2, 4))  # R, T, L, K, H

  return dataclasses.replace(
    cache,
    keys_LJSKHX=cache.keys_LJSKHX.at[:, page_RT, slot_RT, :, :, token_RT].set(
      to_updates(keys_LRKTH), mode="drop", unique_indices=True
    ),
    values_LJSKXH=cache.values_LJSKXH.at[:, page_RT, slot_RT, :, token_RT].set(
      to_updates(values_LRKTH), mode="drop", unique_indices=True
    ),
  )
