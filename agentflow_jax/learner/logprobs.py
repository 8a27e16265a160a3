"""Hidden states -> logprob (and entropy) of the trained tokens, in chunks.

Flow: gather the hidden state that predicts each loss entry -> language-model
head on a chunk of entries at a time -> log-softmax at the target. The head
never sees a token without a loss entry, and the backward pass recomputes each
chunk's logits, so memory holds one chunk of logits, never [T, V].

The same function scores the current and the reference policy. Logits are
divided by the sampling temperature first: what is scored is the distribution
that was sampled (design, promise 2).

Axes: B row, T token, E loss entry, C entries of a chunk, D model, V vocabulary.
"""

import jax
import jax.numpy as jnp

from agentflow_jax.models import transformer


def entry_logprobs(
  arch: transformer.Architecture,
  params: transformer.Params,
  hidden_BTD,
  parent_BE,
  target_BE,
  *,
  temperature: float,
  chunk_tokens: int,
  with_entropy: bool = False,
):
  """Logprobs of the entries under `softmax(logits / temperature)`.

  Args:
    arch: static.
    params: supplies the head.
    hidden_BTD: hidden states after the final norm.
    parent_BE: int, row index whose hidden state predicts the entry.
    target_BE: int token ids.
    temperature: > 0.
    chunk_tokens: entries of all rows per chunk, at most (at least one entry
      per row).
    with_entropy: also return the entropy of each entry's distribution.

  Returns:
    (float32 [B, E] logprobs in nats, float32 [B, E] entropies or None).
  """
  if not temperature > 0:
    raise ValueError(f"temperature must be > 0 to score, got {temperature}")
  hidden_BED = jnp.take_along_axis(hidden_BTD, parent_BE[..., None], axis=1)

  def score(hidden_BCD, target_BC):
    logits_BCV = transformer.project_logits(arch, params, hidden_BCD)
    return _target_logprob(logits_BCV / temperature, target_BC, with_entropy)

  rows, entries = target_BE.shape
  width = max(1, min(entries, chunk_tokens // rows))
  chunks = -(-entries // width)
  if chunks == 1:
    return score(hidden_BED, target_BE)
  # Equal chunks: as few entries as possible are padding.
  width = -(-entries // chunks)

  def split(array):
    pad = [(0, 0), (0, chunks * width - entries)]
    array = jnp.pad(array, pad + [(0, 0)] * (array.ndim - 2))
    array = array.reshape(rows, chunks, width, *array.shape[2:])
    return jnp.moveaxis(array, 1, 0)

  def join(array):
    return jnp.moveaxis(array, 0, 1).reshape(rows, -1)[:, :entries]

  _, scored = jax.lax.scan(
    lambda carry, chunk: (carry, jax.checkpoint(score)(*chunk)),
    None,
    (split(hidden_BED), split(target_BE)),
  )
  return jax.tree.map(join, scored)


def _target_logprob(logits_BCV, target_BC, with_entropy: bool):
  log_z_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
  # A comparison instead of a gather: its gradient is a select, not a scatter
  # into [C, V], and it needs no communication when V is sharded.
  vocabulary_V = jnp.arange(logits_BCV.shape[-1], dtype=target_BC.dtype)
  chosen_BCV = vocabulary_V == target_BC[..., None]
  logit_BC = jnp.where(chosen_BCV, logits_BCV, 0).sum(axis=-1)
  entropy_BC = None
  if with_entropy:
    probabilities_BCV = jnp.exp(logits_BCV - log_z_BC[..., None])
    entropy_BC = log_z_BC - (probabilities_BCV * logits_BCV).sum(axis=-1)
  return logit_BC - log_z_BC, entropy_BC
