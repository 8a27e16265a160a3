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

import jax
import jax.numpy as jnp

_MASKED = -1e30
_BLOCK_TOKENS = 256


def blockwise_attention(
  q_BTNH, k_BTKH, v_BTKH, subtree_end_BT, *, block_tokens: int = _BLOCK_TOKENS
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
  t, n = q_BTNH.shape[1:3]
  groups = n // k_BTKH.shape[2]
  block = min(block_tokens, t)
  pad = -t % block
  if pad:  # keys that nobody sees, queries that nobody reads
    widths = ((0, 0), (0, pad), (0, 0), (0, 0))
    q_BTNH, k_BTKH, v_BTKH = (
      jnp.pad(x, widths) for x in (q_BTNH, k_BTKH, v_BTKH)
    )
    subtree_end_BT = jnp.pad(subtree_end_BT, ((0, 0), (0, pad)))
  q_CBKGSH = _to_blocks(q_BTNH, block, groups)
  k_CBKSH, v_CBKSH = (
    _to_blocks(x, block, 1)[:, :, :, 0] for x in (k_BTKH, v_BTKH)
  )
  end_CBS = jnp.moveaxis(
    subtree_end_BT.reshape(subtree_end_BT.shape[0], -1, block), 1, 0
  )
  out_CBKGSH = _attention(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS)
  out = jnp.transpose(out_CBKGSH, (1, 0, 4, 2, 3, 5))
  return out.reshape(*q_BTNH.shape)[:, :t]


def _to_blocks(x_BTNH, block: int, groups: int):
  """[C, B, N / groups, groups, S, H]"""
  b, t, n, h = x_BTNH.shape
  x = x_BTNH.reshape(b, t // block, block, n // groups, groups, h)
  return jnp.transpose(x, (1, 0, 3, 4, 2, 5))


@jax.custom_vjp
def _attention(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS):
  return _forward(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS)[0]


def _forward(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS):
  """(out_CBKGSH, log-sum-exp of the scores, float32 [C, B, K, G, S])."""

  def query_block(_, scanned):
    q_BKGQH, query_block, keys_C, count = scanned

    def visit(index, state):
      out, total, top = state
      block = keys_C[index]
      scores = _scores(q_BKGQH, k_CBKSH[block], end_CBS, query_block, block)
      new_top = jnp.maximum(top, scores.max(axis=-1))
      weights = _seen_exp(scores, new_top)
      decay = jnp.exp(top - new_top)
      out = out * decay[..., None] + _dot(
        "bkgqp,bkph->bkgqh", weights, v_CBKSH[block]
      )
      return out, total * decay + weights.sum(axis=-1), new_top

    zeros = jnp.zeros(q_BKGQH.shape, jnp.float32)
    start = (zeros, zeros[..., 0], jnp.full(q_BKGQH.shape[:-1], _MASKED))
    out, total, top = jax.lax.fori_loop(0, count, visit, start)
    total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    out = (out / total[..., None]).astype(q_BKGQH.dtype)
    return None, (out, top + jnp.log(total))

  _, out = jax.lax.scan(query_block, None, (q_CBKGSH, *_visits(end_CBS)))
  return out


def _forward_saving(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS):
  out, log_total = _forward(q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS)
  return out, (q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS, out, log_total)


def _backward(saved, d_out_CBKGSH):
  q_CBKGSH, k_CBKSH, v_CBKSH, end_CBS, out_CBKGSH, log_total_CBKGS = saved
  scale = q_CBKGSH.shape[-1] ** -0.5

  def query_block(carry, scanned):
    q, d_out, out, log_total, query_block, keys_C, count = scanned
    d_out = d_out.astype(q.dtype)
    inner = jnp.sum(
      d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1
    )

    def visit(index, state):
      d_q, d_k_CBKSH, d_v_CBKSH = state
      block = keys_C[index]
      k, v = k_CBKSH[block], v_CBKSH[block]
      scores = _scores(q, k, end_CBS, query_block, block)
      weights = _seen_exp(scores, log_total)
      d_weights = _dot("bkgqh,bkph->bkgqp", d_out, v)
      d_scores = weights * (d_weights - inner[..., None]) * scale
      d_q += _dot("bkgqp,bkph->bkgqh", d_scores, k)
      d_k = _dot("bkgqp,bkgqh->bkph", d_scores, q)
      d_v = _dot("bkgqp,bkgqh->bkph", weights, d_out)
      return (
        d_q,
        d_k_CBKSH.at[block].add(d_k),
        d_v_CBKSH.at[block].add(d_v),
      )

    d_q, *carry = jax.lax.fori_loop(
      0, count, visit, (jnp.zeros(q.shape, jnp.float32), *carry)
    )
    return tuple(carry), d_q.astype(q.dtype)

  zeros = jnp.zeros(k_CBKSH.shape, jnp.float32)
  (d_k, d_v), d_q = jax.lax.scan(
    query_block,
    (zeros, zeros),
    (q_CBKGSH, d_out_CBKGSH, out_CBKGSH, log_total_CBKGS, *_visits(end_CBS)),
  )
  return d_q, d_k.astype(k_CBKSH.dtype), d_v.astype(v_CBKSH.dtype), None


_attention.defvjp(_forward_saving, _backward)


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
  """Scaled float32 scores, `_MASKED` where the tree rule forbids."""
  block = end_CBS.shape[-1]
  index_S = jnp.arange(block)
  query_Q1 = (query_block * block + index_S)[:, None]
  key_P = key_block * block + index_S
  end_BP = end_CBS[key_block]
  seen_BQP = (query_Q1 >= key_P) & (query_Q1 < end_BP[:, None])
  scores = _dot("bkgqh,bkph->bkgqp", q_BKGQH, k_BKPH)
  scale = q_BKGQH.shape[-1] ** -0.5
  return jnp.where(seen_BQP[:, None, None], scores * scale, _MASKED)


def _seen_exp(scores_BKGQP, shift_BKGQ):
  """exp(scores - shift), 0 where masked even if the whole row is."""
  weights = jnp.exp(scores_BKGQP - shift_BKGQ[..., None])
  return jnp.where(scores_BKGQP > _MASKED / 2, weights, 0.0)


def _dot(equation: str, left, right):
  """Matrix product in the type of `right`, summed in float32."""
  return jnp.einsum(
    equation,
    left.astype(right.dtype),
    right,
    preferred_element_type=jnp.float32,
  )
