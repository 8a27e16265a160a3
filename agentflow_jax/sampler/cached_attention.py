"""Attention over fresh tokens first, then over cached ones, piece by piece.

The cache is read-only while a program's layers run: keys and values of the
tokens being computed travel in a small `carry` and are written afterwards, so
the big buffers are never copied. The softmax is accumulated online (running
maximum, sum and output). The number of pieces read (blocks in prefill, pages in
decode) is a traced bound, and a piece that a row may not see leaves its
accumulator exactly as it was, so a row's bits do not depend on how long its
neighbours are.

Scores, maxima, sums and outputs are float32.

Axes: B row, K key/value head, G query head of a key/value head, M query
(G times tokens), H head dim, C token of a block, T decode step, X token of a
page, L layer.
"""

import dataclasses
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
      key_KHC, value_KCH = cache_lib.read_block(cache, slot, index, layer)
      return _more(state, q_KMH, key_KHC, value_KCH, index < block)

    state = jax.lax.fori_loop(0, reads, read, state)
    out_KMH = _finish(state)
    out_TNH = jnp.transpose(
      out_KMH.reshape(heads, -1, tokens, out_KMH.shape[-1]), (2, 0, 1, 3)
    )
    return out_TNH.reshape(q_BTNH.shape).astype(q_BTNH.dtype), carry

  return attend


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reads:
  """What the decode steps of a window read of the cache.

  Rows are the slots from `first` on. Every row that counts sees the first
  `shared` pages, and they are those of slot `leader`.
  """

  first: Any  # int32, slot of the first row
  cached_B: Any  # int32, how many tokens of each row's slot may be seen
  pages: Any  # int32, how many to read; covers max(cached_B)
  leader: Any  # int32
  shared: Any  # int32, at most what each row has; None reads nothing jointly


def decode_attend(
  cache: cache_lib.KVCache, reads: Reads, step
) -> transformer.Attend:
  """Attention of one new token per row.

  A shared page is read once for all rows, as one product with many queries
  instead of one small product per row. Both give the same bits where
  `sharing.keeps_bits` says so.

  Args:
    cache: read only.
    reads: which tokens of it.
    step: index of this step in the carry; earlier steps are visible.

  Returns:
    An `attend` over [B, 1, ...] arrays with carry (keys_LBKTH, values_LBKTH).
  """

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
    if reads.shared is not None:
      state = _read_shared(cache, reads, layer, q_BKGH, state)
    out_BKGH = _finish(_read_own(cache, reads, layer, q_BKGH, state))
    return (
      out_BKGH.reshape(q_BTNH.shape).astype(q_BTNH.dtype),
      (keys_LBKTH, values_LBKTH),
    )

  return attend


def _read_shared(cache, reads: Reads, layer, q_BKGH, state) -> Accumulator:
  """Adds the pages that all rows have, those of one slot for all of them."""
  rows, kv_heads = q_BKGH.shape[:2]
  together = lambda x_BKGH: jnp.swapaxes(x_BKGH, 0, 1).reshape(
    kv_heads, -1, x_BKGH.shape[-1]
  )
  apart = lambda x_KMH: jnp.swapaxes(
    x_KMH.reshape(kv_heads, rows, -1, x_KMH.shape[-1]), 0, 1
  )
  q_KMH = together(q_BKGH)
  cached_M = jnp.repeat(reads.cached_B, q_BKGH.shape[2])

  def read(page, state):
    key_KHX, value_KXH = jax.tree.map(
      lambda x: x[0], cache_lib.read_pages(cache, layer, page, reads.leader, 1)
    )
    # True in every row that counts. It is asked all the same: without it XLA
    # would fuse, and round, the sums in another way than in `_read_own`.
    seen_MX = _position(cache, page) < cached_M[:, None]
    return _more(state, q_KMH, key_KHX, value_KXH, seen_MX[None], _weigh_many)

  state = jax.tree.map(together, state)
  state = jax.lax.fori_loop(0, reads.shared, read, state)
  return jax.tree.map(apart, state)


def _read_own(cache, reads: Reads, layer, q_BKGH, state) -> Accumulator:
  """Adds the other pages, those of its own slot for every row."""

  def read(page, state):
    seen_BX = _position(cache, page) < reads.cached_B[:, None]
    keys_and_values = cache_lib.read_pages(
      cache, layer, page, reads.first, q_BKGH.shape[0]
    )
    return _more(state, q_BKGH, *keys_and_values, seen_BX[:, None, None])

  start = 0 if reads.shared is None else reads.shared
  return jax.lax.fori_loop(start, reads.pages, read, state)


def _position(cache, page):
  """int32 [X], of a page's tokens in their slot."""
  return page * cache.page_tokens + jnp.arange(cache.page_tokens)


def _group(q_TNH, kv_heads: int):
  """[K, G * T, H]: the queries that share a key/value head, head by head."""
  tokens, heads, size = q_TNH.shape
  q_TKGH = q_TNH.reshape(tokens, kv_heads, heads // kv_heads, size)
  return jnp.transpose(q_TKGH, (1, 2, 0, 3)).reshape(kv_heads, -1, size)


def _set_layer(array, layer, value):
  return jax.lax.dynamic_update_index_in_dim(array, value, layer, 0)


def _scores(q, key):
  """float32 [..., M, C] of queries [..., M, H] and keys [..., H, C]."""
  scores = jnp.matmul(q, key, preferred_element_type=jnp.float32)
  return scores * q.shape[-1] ** -0.5


def _weigh(weights, value):
  return jnp.matmul(
    weights.astype(value.dtype), value, preferred_element_type=jnp.float32
  )


def _weigh_many(weights, value):
  """As `_weigh`, in products of no more queries than head dims.

  With more, the matrix library of a CPU would split the sum and round
  differently than for the few queries of one row.
  """
  size = value.shape[-1]
  pieces = range(0, weights.shape[-2], size)
  return jnp.concatenate(
    [_weigh(weights[..., at : at + size, :], value) for at in pieces], axis=-2
  )


def _first(q, key, value, seen) -> Accumulator:
  """Starts the accumulator; every query must see at least one key."""
  scores = jnp.where(seen, _scores(q, key), _MASKED)
  top = jnp.max(scores, axis=-1, keepdims=True)
  weights = jnp.exp(scores - top)  # exactly 0 where masked
  return top, jnp.sum(weights, axis=-1, keepdims=True), _weigh(weights, value)


def _more(state: Accumulator, q, key, value, seen, weigh=_weigh) -> Accumulator:
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
    out * factor + weigh(weights, value),
  )


def _finish(state: Accumulator):
  _, total, out = state
  return out / total
