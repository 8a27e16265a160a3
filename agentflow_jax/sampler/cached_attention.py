"""Attention over fresh tokens first, then over cached blocks, one by one.

The cache is read-only while a program's layers run: keys and values of the
tokens being computed travel in a small `carry` and are written afterwards, so
the big buffers are never copied. The softmax is accumulated online (running
maximum, sum and output). The number of blocks read is a traced bound, and a
block that a row may not see leaves its accumulator exactly as it was, so a
row's bits do not depend on how long its neighbours are.

Scores, maxima, sums and outputs are float32.

Axes: B row, K key/value head, G query head of a key/value head, M query
(G times tokens), H head dim, C token of a block, T decode step, U block of one
read, X token of one read, L layer.
"""

from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.models import transformer
from agentflow_jax.sampler import cache as cache_lib

_MASKED = -1e30  # finite: a fully masked row stays finite

# Running maximum, sum (both [..., M, 1]) and weighted values [..., M, H].
Accumulator = tuple[Any, Any, Any]


def prefill_attend(
  cache: cache_lib.KVCache, slot, block, reads
) -> transformer.Attend:
  """Attention of one chunk of one slot.

  Args:
    cache: holds the slot's earlier blocks, all of which are visible.
    slot: of the chunk.
    block: index of the chunk in its slot.
    reads: how many blocks to read; at least `block`.

  Returns:
    An `attend` over [1, C, ...] arrays with carry (keys_LKHC, values_LKCH).
  """

  def attend(layer, q_BTNH, k_BTKH, v_BTKH, carry):
    keys_LKHC, values_LKCH = carry
    tokens, heads = k_BTKH.shape[1], k_BTKH.shape[2]
    key_KHC = jnp.transpose(k_BTKH[0], (1, 2, 0))
    value_KCH = jnp.transpose(v_BTKH[0], (1, 0, 2))
    carry = (
      _set_layer(keys_LKHC, layer, key_KHC),
      _set_layer(values_LKCH, layer, value_KCH),
    )
    q_KMH = _group(q_BTNH[0], heads)
    causal_MC = jnp.tile(
      jnp.tril(jnp.ones((tokens, tokens), bool)), (q_KMH.shape[1] // tokens, 1)
    )
    state = _first(q_KMH, key_KHC, value_KCH, causal_MC)

    def read(index, state):
      at = (layer, index, slot, 0, 0, 0)
      key_KHC = _block(cache.keys_LJSKHC, at, (1, 1, 1))[0, 0, 0]
      value_KCH = _block(cache.values_LJSKCH, at, (1, 1, 1))[0, 0, 0]
      return _more(state, q_KMH, key_KHC, value_KCH, index < block)

    state = jax.lax.fori_loop(0, reads, read, state)
    out_KMH = _finish(state)
    out_TNH = jnp.transpose(
      out_KMH.reshape(heads, -1, tokens, out_KMH.shape[-1]), (2, 0, 1, 3)
    )
    return out_TNH.reshape(q_BTNH.shape).astype(q_BTNH.dtype), carry

  return attend


def decode_attend(
  cache: cache_lib.KVCache, first, cached_B, step, reads, blocks_per_read: int
) -> transformer.Attend:
  """Attention of one new token per row.

  Args:
    cache: its slots from `first` on are the rows.
    first: slot of the first row.
    cached_B: how many tokens of each row's slot may be seen.
    step: index of this step in the carry; earlier steps are visible.
    reads: how often to read `blocks_per_read` blocks; covers max(cached_B).
    blocks_per_read: static.

  Returns:
    An `attend` over [B, 1, ...] arrays with carry (keys_LBKTH, values_LBKTH).
  """
  read_tokens = blocks_per_read * cache.block_tokens

  def attend(layer, q_BTNH, k_BTKH, v_BTKH, carry):
    keys_LBKTH, values_LBKTH = (
      jax.lax.dynamic_update_slice(
        fresh, new_BTKH[:, 0][None, :, :, None], (layer, 0, 0, step, 0)
      )
      for fresh, new_BTKH in zip(carry, (k_BTKH, v_BTKH), strict=True)
    )
    q_BKGH = q_BTNH.reshape(
      q_BTNH.shape[0], k_BTKH.shape[2], -1, q_BTNH.shape[-1]
    )
    key_BKTH = jax.lax.dynamic_index_in_dim(keys_LBKTH, layer, keepdims=False)
    value_BKTH = jax.lax.dynamic_index_in_dim(
      values_LBKTH, layer, keepdims=False
    )
    state = _first(
      q_BKGH,
      jnp.swapaxes(key_BKTH, -1, -2),
      value_BKTH,
      jnp.arange(key_BKTH.shape[-2]) <= step,
    )

    def read(index, state):
      at = (layer, index * blocks_per_read, first, 0, 0, 0)
      size = (1, blocks_per_read, q_BKGH.shape[0])
      position_X = index * read_tokens + jnp.arange(read_tokens)
      seen_BX = position_X < cached_B[:, None]
      keys_and_values = _side_by_side(cache, at, size)
      return _more(state, q_BKGH, *keys_and_values, seen_BX[:, None, None])

    state = jax.lax.fori_loop(0, reads, read, state)
    out_BKGH = _finish(state)
    return (
      out_BKGH.reshape(q_BTNH.shape).astype(q_BTNH.dtype),
      (keys_LBKTH, values_LBKTH),
    )

  return attend


def _side_by_side(cache: cache_lib.KVCache, at, size):
  """(key_BKHX, value_BKXH) of U blocks: fewer and longer products."""
  key_UBKHC = _block(cache.keys_LJSKHC, at, size)[0]
  value_UBKCH = _block(cache.values_LJSKCH, at, size)[0]
  key_BKHUC = jnp.transpose(key_UBKHC, (1, 2, 3, 0, 4))
  value_BKUCH = jnp.transpose(value_UBKCH, (1, 2, 0, 3, 4))
  rows, kv_heads, head_dim = key_BKHUC.shape[:3]
  return (
    key_BKHUC.reshape(rows, kv_heads, head_dim, -1),
    value_BKUCH.reshape(rows, kv_heads, -1, head_dim),
  )


def _group(q_TNH, kv_heads: int):
  """[K, G * T, H]: the queries that share a key/value head, head by head."""
  tokens, heads, size = q_TNH.shape
  q_TKGH = q_TNH.reshape(tokens, kv_heads, heads // kv_heads, size)
  return jnp.transpose(q_TKGH, (1, 2, 0, 3)).reshape(kv_heads, -1, size)


def _set_layer(array, layer, value):
  return jax.lax.dynamic_update_index_in_dim(array, value, layer, 0)


def _block(array, at, size):
  return jax.lax.dynamic_slice(array, at, (*size, *array.shape[3:]))


def _scores(q, key):
  """float32 [..., M, C] of queries [..., M, H] and keys [..., H, C]."""
  scores = jnp.matmul(q, key, preferred_element_type=jnp.float32)
  return scores * q.shape[-1] ** -0.5


def _weigh(weights, value):
  return jnp.matmul(
    weights.astype(value.dtype), value, preferred_element_type=jnp.float32
  )


def _first(q, key, value, seen) -> Accumulator:
  """Starts the accumulator; every query must see at least one key."""
  scores = jnp.where(seen, _scores(q, key), _MASKED)
  top = jnp.max(scores, axis=-1, keepdims=True)
  weights = jnp.exp(scores - top)  # exactly 0 where masked
  return top, jnp.sum(weights, axis=-1, keepdims=True), _weigh(weights, value)


def _more(state: Accumulator, q, key, value, seen) -> Accumulator:
  """Adds keys to the accumulator.

  Where nothing is seen the result equals `state` to the bit: the maximum
  stays, its factor is exp(0) = 1, the rest adds 0.
  """
  top, total, out = state
  scores = jnp.where(seen, _scores(q, key), _MASKED)
  new_top = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
  weights = jnp.exp(scores - new_top)
  factor = jnp.exp(top - new_top)
  return (
    new_top,
    total * factor + jnp.sum(weights, axis=-1, keepdims=True),
    out * factor + _weigh(weights, value),
  )


def _finish(state: Accumulator):
  _, total, out = state
  return out / total
