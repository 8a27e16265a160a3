"""Attention over token trees in memory linear in T, forward and backward.

Queries and keys are cut into blocks. For each query block only the key blocks
that some query of it can see are visited (above the diagonal nothing is; in a
tree, other branches are not either), with an online softmax (Milakov and
Gimelshein, arXiv 1805.02867); the backward pass visits the same pairs again
and recomputes the weights from the saved log-sum-exp (Dao et al., arXiv
2205.14135). Plain XLA, so it runs on every backend; `attention.py` chooses
between this and the dense form and is its oracle.

The visited pairs are a union over the batch rows, so rows of like layout cost
least. Only reverse-mode derivatives exist.

Axes: B row, T token, N query heads, K key/value heads, G = N / K, H head dim,
C blocks, S tokens of a block; Q and P are S for queries and keys.
"""

import functools

import jax
import jax.numpy as jnp

from agentflow_jax.models import remat

_MASKED = -1e30
# A log-sum-exp is not below it: so a masked score stays far below that of a
# query that sees nothing, and its exponential is 0.
_LOWEST = _MASKED / 2


def blockwise_attention(
  q_BTNH, k_BTKH, v_BTKH, subtree_end_BT, *, block_tokens: int = 256
):
  """Equal to `dense_attention` under `tree_mask`; float32 softmax.

  Args:
    q_BTNH: queries; N is a multiple of K.
    k_BTKH: keys.
    v_BTKH: values.
    subtree_end_BT: int32; key j is seen by queries j <= i < subtree_end[j].
    block_tokens: S; a shorter row is one block.

  Returns:
    [B, T, N, H] in the dtype of q. A query that sees no key gets zeros.
  """
  block = min(block_tokens, q_BTNH.shape[1])
  return _attention(block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT):
  return _forward(block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT)[0]


def _forward(block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT):
  """(out_BTNH, what the backward pass needs)."""
  q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS = _in_blocks(
    block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT
  )

  def query_block(_, scanned):
    q_BKGQH, query_block, keys_C, count = scanned

    def visit(index, state):
      out, total, top = state
      block = keys_C[index]
      scores = _scores(q_BKGQH, k_CBKSH[block], end_CBS, query_block, block)
      new_top = jnp.maximum(top, scores.max(axis=-1))
      weights = jnp.exp(scores - new_top[..., None])
      decay = jnp.exp(top - new_top)
      out = out * decay[..., None] + _dot(
        "bkgqp,bkph->bkgqh", weights, v_CBKSH[block]
      )
      return out, total * decay + weights.sum(axis=-1), new_top

    zeros = jnp.zeros(q_BKGQH.shape, jnp.float32)
    start = (zeros, zeros[..., 0], jnp.full(q_BKGQH.shape[:-1], _LOWEST))
    out, total, top = jax.lax.fori_loop(0, count, visit, start)
    total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    out = (out / total[..., None]).astype(q_BKGQH.dtype)
    return None, (out, top + jnp.log(total))

  _, (out_CBKGSH, log_total_CBKGS) = jax.lax.scan(
    query_block, None, (q_CBKGSH, *_visits(end_CBS))
  )
  out_BTNH = remat.attended(_from_blocks(out_CBKGSH, q_BTNH.shape[1]))
  log_total_CBKGS = remat.attended(log_total_CBKGS)
  saved = (q_BTNH, k_BTKH, v_BTKH, subtree_end_BT, out_BTNH, log_total_CBKGS)
  return out_BTNH, saved


def _backward(block, saved, d_out_BTNH):
  q_BTNH, k_BTKH, v_BTKH, subtree_end_BT, out_BTNH, log_total_CBKGS = saved
  q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS = _in_blocks(
    block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT
  )
  *heads, g, s, h = q_CBKGSH.shape
  q_CBKQH, out_CBKQH, d_out_CBKQH = (
    x_CBKGSH.reshape(*heads, g * s, h)
    for x_CBKGSH in (
      q_CBKGSH,
      _to_blocks(out_BTNH, block, g),
      _to_blocks(d_out_BTNH.astype(q_BTNH.dtype), block, g),
    )
  )

  def query_block(carry, scanned):
    q_BKQH, out_BKQH, d_out_BKQH, log_total_BK1GS, *visits = scanned
    q_BKHQ, out_BKHQ, d_out_BKHQ = (
      x.swapaxes(-1, -2) for x in (q_BKQH, out_BKQH, d_out_BKQH)
    )
    # A sum over rows, not within them, which a CPU does one by one.
    inner_BK1Q = jnp.sum(
      d_out_BKHQ.astype(jnp.float32) * out_BKHQ, axis=-2, keepdims=True
    )
    query = (q_BKQH, q_BKHQ, d_out_BKQH, d_out_BKHQ)
    query = (*query, inner_BK1Q, log_total_BK1GS)
    query_block, keys_C, count = visits

    def visit(index, state):
      d_q_BKHQ, d_k_CBKSH, d_v_CBKSH = state
      block = keys_C[index]
      seen_BQP = _seen(end_CBS, query_block, block)
      d_q, d_k, d_v = _pair_gradient(
        query, k_CBKSH[block], v_CBKSH[block], seen_BQP
      )
      return (
        d_q_BKHQ + d_q,
        d_k_CBKSH.at[block].add(d_k),
        d_v_CBKSH.at[block].add(d_v),
      )

    zeros = jnp.zeros(q_BKHQ.shape, jnp.float32)
    d_q_BKHQ, *carry = jax.lax.fori_loop(0, count, visit, (zeros, *carry))
    return tuple(carry), d_q_BKHQ.swapaxes(-1, -2)

  zeros = jnp.zeros(k_CBKSH.shape, jnp.float32)
  log_total_CBK1GS = log_total_CBKGS[:, :, :, None]
  queries = (q_CBKQH, out_CBKQH, d_out_CBKQH, log_total_CBK1GS)
  (d_k, d_v), d_q = jax.lax.scan(
    query_block, (zeros, zeros), (*queries, *_visits(end_CBS))
  )
  t = q_BTNH.shape[1]
  return (
    _from_blocks(d_q.reshape(q_CBKGSH.shape), t).astype(q_BTNH.dtype),
    _from_blocks(d_k[:, :, :, None], t).astype(k_BTKH.dtype),
    _from_blocks(d_v[:, :, :, None], t).astype(v_BTKH.dtype),
    None,
  )


_attention.defvjp(_forward, _backward)


def _in_blocks(block, q_BTNH, k_BTKH, v_BTKH, subtree_end_BT):
  """(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS); keys of padding nobody sees."""
  q_CBKGSH = _to_blocks(q_BTNH, block, q_BTNH.shape[2] // k_BTKH.shape[2])
  k_CBKSH, v_CBKSH = (
    _to_blocks(x, block, 1)[:, :, :, 0] for x in (k_BTKH, v_BTKH)
  )
  b, t = subtree_end_BT.shape
  end_BT = jnp.pad(subtree_end_BT, ((0, 0), (0, -t % block)))
  end_CBS = jnp.moveaxis(end_BT.reshape(b, -1, block), 1, 0)
  return q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS


def _to_blocks(x_BTNH, block: int, groups: int):
  """[C, B, N / groups, groups, S, H], the last block filled with zeros."""
  b, t, n, h = x_BTNH.shape
  x = jnp.pad(x_BTNH, ((0, 0), (0, -t % block), (0, 0), (0, 0)))
  x = x.reshape(b, -1, block, n // groups, groups, h)
  return jnp.transpose(x, (1, 0, 3, 4, 2, 5))


def _from_blocks(x_CBKGSH, tokens: int):
  """[B, T, N, H], the inverse of `_to_blocks`."""
  c, b, k, g, s, h = x_CBKGSH.shape
  x = jnp.transpose(x_CBKGSH, (1, 0, 4, 2, 3, 5))
  return x.reshape(b, c * s, k * g, h)[:, :tokens]


def _pair_gradient(query, k_BKPH, v_BKPH, seen_BSP):
  """What a block of queries and one of keys add to the gradients, float32.

  Keys come first, so that no product transposes an array as large as the
  scores: on a CPU, XLA does that inside the loop that computes the array,
  reading by columns, at twice the time.

  `query` is (q_BKQH, q_BKHQ, d_out_BKQH, d_out_BKHQ, inner_BK1Q,
  log_total_BK1GS), where Q is the S queries of all G heads, head by head.
  Returns (d_q_BKHQ, d_k_BKPH, d_v_BKPH).
  """
  q_BKQH, q_BKHQ, d_out_BKQH, d_out_BKHQ, inner_BK1Q, log_total_BK1GS = query
  scale = q_BKQH.shape[-1] ** -0.5
  scores_BKPQ = _dot("bkph,bkhq->bkpq", k_BKPH, q_BKHQ) * scale
  # On [B, K, P, G, S]: over flat heads the bias would cost more to find.
  scores_BKPGS = scores_BKPQ.reshape(
    *scores_BKPQ.shape[:-1], *log_total_BK1GS.shape[-2:]
  )
  bias_BPS = _bias(seen_BSP).swapaxes(-1, -2)
  scores_BKPGS += bias_BPS[:, None, :, None] - log_total_BK1GS
  weights = jnp.exp(scores_BKPGS).reshape(scores_BKPQ.shape)
  d_weights = _dot("bkph,bkhq->bkpq", v_BKPH, d_out_BKHQ)
  d_scores = weights * (d_weights - inner_BK1Q) * scale
  d_scores = d_scores.astype(q_BKQH.dtype)
  return (
    _dot("bkhp,bkpq->bkhq", k_BKPH.swapaxes(-1, -2), d_scores),
    _dot("bkpq,bkqh->bkph", d_scores, q_BKQH),
    _dot("bkpq,bkqh->bkph", weights, d_out_BKQH),
  )


def _visits(end_CBS):
  """Which key blocks each query block visits.

  Returns:
    (own index [C], key blocks in visiting order [C, C], their number [C]).
  """
  blocks, _, block = end_CBS.shape
  index_C = jnp.arange(blocks, dtype=jnp.int32)
  last_end_C = end_CBS.max(axis=(1, 2))
  seen_CC = (index_C[None] <= index_C[:, None]) & (
    last_end_C[None] > index_C[:, None] * block
  )
  order_CC = jnp.argsort(~seen_CC, axis=1, stable=True).astype(jnp.int32)
  return index_C, order_CC, seen_CC.sum(axis=1, dtype=jnp.int32)


def _scores(q_BKGQH, k_BKPH, end_CBS, query_block, key_block):
  """Scaled float32 scores, below all others where the tree rule forbids."""
  seen_BQP = _seen(end_CBS, query_block, key_block)
  scores = _dot("bkgqh,bkph->bkgqp", q_BKGQH, k_BKPH)
  scale = q_BKGQH.shape[-1] ** -0.5
  return scores * scale + _bias(seen_BQP)[:, None, None]


def _seen(end_CBS, query_block, key_block):
  """Whether each query of one block sees each key of another, [B, Q, P]."""
  block = end_CBS.shape[-1]
  index_S = jnp.arange(block)
  query_Q1 = (query_block * block + index_S)[:, None]
  key_P = key_block * block + index_S
  return (query_Q1 >= key_P) & (query_Q1 < end_CBS[key_block][:, None])


def _bias(seen):
  """What makes a score's exponential 0 where a key is not seen, else 0.

  Added, because XLA's selection between two arrays of scores takes a CPU
  longer than the exponential does.
  """
  return jnp.where(seen, 0.0, _MASKED)


def _dot(equation: str, left, right):
  """Matrix product in the type of `right`, summed in float32."""
  return jnp.einsum(
    equation,
    left.astype(right.dtype),
    right,
    preferred_element_type=jnp.float32,
  )
