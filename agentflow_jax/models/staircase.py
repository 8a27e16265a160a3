"""Attention over token trees in short rows on a CPU.

Queries are cut into a few blocks, and each meets the keys up to its own end
only: no work above the staircase, where the causal rule forbids everything.
The backward pass recomputes the weights from the saved log-sum-exp (Dao et
al., arXiv 2205.14135), so no T x T array outlives its layer: on a CPU, writing
and reading those costs more than computing them. Against the dense form, a
training step of the quickstart's planner takes three quarters of the time.

All blocks are unrolled, which is for rows of a few thousand tokens at most;
blockwise.py is for longer ones. Only reverse-mode derivatives exist.

Axes: B row, T token, N query heads, K key/value heads, G = N / K, H head dim;
Q the queries of a block, S the keys up to its end.
"""

import jax
import jax.numpy as jnp

from agentflow_jax.models import remat

_MASKED = -1e30
_BLOCKS = 8  # more save little and compile for long
_LEAST_TOKENS = 32  # of a block; the products get too small


@jax.custom_vjp
def staircase_attention(q_BTNH, k_BTKH, v_BTKH, subtree_end_BT):
  """Equal to `dense_attention` under `tree_mask`; float32 softmax.

  Args:
    q_BTNH: queries; N is a multiple of K.
    k_BTKH: keys.
    v_BTKH: values.
    subtree_end_BT: int32; key j is seen by queries j <= i < subtree_end[j].

  Returns:
    [B, T, N, H] in the dtype of q. A query that sees no key gets zeros.
  """
  return _forward(q_BTNH, k_BTKH, v_BTKH, subtree_end_BT)[0]


def _forward(q_BTNH, k_BTKH, v_BTKH, subtree_end_BT):
  """(out_BTNH, what the backward pass needs)."""
  q_BKGTH, k_BKTH, v_BKTH = _heads_first(q_BTNH, k_BTKH, v_BTKH)
  outs, log_totals = [], []
  for start, stop in _blocks(q_BTNH.shape[1]):
    scores, seen = _scores(q_BKGTH, k_BKTH, subtree_end_BT, start, stop)
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.where(seen, jnp.exp(scores - top), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    out = _product(weights, v_BKTH[:, :, :stop])
    outs.append(out / total)
    log_totals.append(top + jnp.log(total))
  out_BKGTH = jnp.concatenate(outs, axis=3)
  log_total_BKGT1 = jnp.concatenate(log_totals, axis=3)
  out_BTNH = remat.attended(_tokens_first(out_BKGTH).astype(q_BTNH.dtype))
  log_total_BKGT1 = remat.attended(log_total_BKGT1)
  saved = (q_BTNH, k_BTKH, v_BTKH, subtree_end_BT, out_BTNH, log_total_BKGT1)
  return out_BTNH, saved


def _backward(saved, d_out_BTNH):
  q_BTNH, k_BTKH, v_BTKH, subtree_end_BT, out_BTNH, log_total_BKGT1 = saved
  q_BKGTH, k_BKTH, v_BKTH = _heads_first(q_BTNH, k_BTKH, v_BTKH)
  d_out_BKGTH, out_BKGTH = (
    _grouped(x, k_BTKH.shape[2])
    for x in (d_out_BTNH.astype(q_BTNH.dtype), out_BTNH)
  )
  inner_BKGT1 = jnp.sum(
    d_out_BKGTH.astype(jnp.float32) * out_BKGTH, axis=-1, keepdims=True
  )
  d_qs = []
  d_k_BKTH = jnp.zeros(k_BKTH.shape, jnp.float32)
  d_v_BKTH = jnp.zeros(v_BKTH.shape, jnp.float32)
  for start, stop in _blocks(q_BTNH.shape[1]):
    q, d_out, inner, log_total = (
      x[:, :, :, start:stop]
      for x in (q_BKGTH, d_out_BKGTH, inner_BKGT1, log_total_BKGT1)
    )
    scores, seen = _scores(q_BKGTH, k_BKTH, subtree_end_BT, start, stop)
    weights = jnp.where(seen, jnp.exp(scores - log_total), 0.0)
    d_weights = _product(d_out, v_BKTH[:, :, :stop].swapaxes(-1, -2))
    d_scores = weights * (d_weights - inner)
    d_qs.append(_product(d_scores, k_BKTH[:, :, :stop]))
    d_k_BKTH = d_k_BKTH.at[:, :, :stop].add(_over_queries(d_scores, q))
    d_v_BKTH = d_v_BKTH.at[:, :, :stop].add(_over_queries(weights, d_out))
  scale = q_BTNH.shape[-1] ** -0.5  # that of d_k is in q
  d_q_BTNH = _tokens_first(jnp.concatenate(d_qs, axis=3) * scale)
  return (
    d_q_BTNH.astype(q_BTNH.dtype),
    d_k_BKTH.swapaxes(1, 2).astype(k_BTKH.dtype),
    d_v_BKTH.swapaxes(1, 2).astype(v_BTKH.dtype),
    None,
  )


staircase_attention.defvjp(_forward, _backward)


def _blocks(tokens: int) -> list[tuple[int, int]]:
  """(start, stop) of every block of queries."""
  size = max(_LEAST_TOKENS, -(-tokens // _BLOCKS))
  return [
    (start, min(start + size, tokens)) for start in range(0, tokens, size)
  ]


def _heads_first(q_BTNH, k_BTKH, v_BTKH):
  """(q_BKGTH scaled, k_BKTH, v_BKTH)."""
  scale = q_BTNH.shape[-1] ** -0.5
  q_BKGTH = _grouped(q_BTNH, k_BTKH.shape[2]) * scale
  return q_BKGTH, k_BTKH.swapaxes(1, 2), v_BTKH.swapaxes(1, 2)


def _grouped(x_BTNH, kv_heads: int):
  """[B, K, G, T, H]"""
  b, t, n, h = x_BTNH.shape
  x_BTKGH = x_BTNH.reshape(b, t, kv_heads, n // kv_heads, h)
  return jnp.transpose(x_BTKGH, (0, 2, 3, 1, 4))


def _tokens_first(x_BKGTH):
  b, k, g, t, h = x_BKGTH.shape
  return jnp.transpose(x_BKGTH, (0, 3, 1, 2, 4)).reshape(b, t, k * g, h)


def _scores(q_BKGTH, k_BKTH, subtree_end_BT, start: int, stop: int):
  """(float32 scores [B, K, G, Q, S], `_MASKED` where not seen; what is)."""
  scores = _product(
    q_BKGTH[:, :, :, start:stop], k_BKTH[:, :, :stop].swapaxes(-1, -2)
  )
  query_Q1 = jnp.arange(start, stop)[:, None]
  seen_BQS = (query_Q1 >= jnp.arange(stop)) & (
    query_Q1 < subtree_end_BT[:, None, :stop]
  )
  seen = seen_BQS[:, None, None]
  return jnp.where(seen, scores, _MASKED), seen


def _product(left_BKGQX, right_BKXY):
  """[B, K, G, Q, Y]: heads that share keys in one product, in their type."""
  b, k, g, q, x = left_BKGQX.shape
  out = jnp.matmul(
    left_BKGQX.reshape(b, k, g * q, x).astype(right_BKXY.dtype),
    right_BKXY,
    preferred_element_type=jnp.float32,
  )
  return out.reshape(b, k, g, q, right_BKXY.shape[-1])


def _over_queries(left_BKGQS, right_BKGQH):
  """[B, K, S, H]: sums over the queries of all heads that share keys."""
  b, k, g, q, s = left_BKGQS.shape
  return jnp.matmul(
    left_BKGQS.reshape(b, k, g * q, s)
    .astype(right_BKGQH.dtype)
    .swapaxes(-1, -2),
    right_BKGQH.reshape(b, k, g * q, -1),
    preferred_element_type=jnp.float32,
  )
