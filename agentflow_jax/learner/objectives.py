"""Objectives: one micro-batch -> its share of the loss, and statistics.

Flow: packed rows -> forward under the tree mask -> logprobs of the loss entries
-> terms of losses.py -> weighted sums. The weights hold every normaliser of the
optimizer batch, so the losses of its micro-batches simply add up, and so do
their gradients.

With a KL coefficient the reference scores the same rows in the same program;
without one its forward does not exist. Where `arch` has adapters, they are what
is trained and the reference is their base. Config values are read here and end
here: losses.py sees numbers.

Axes: B row, T token, E loss entry.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import logprobs, losses
from agentflow_jax.learner import statistics as statistics_lib
from agentflow_jax.models import attention, lora, transformer

# (trained params, reference params or None, batch) -> (loss, Statistics)
Objective = Callable[
  [Any, Any, device_batch.TrainBatch],
  tuple[jax.Array, statistics_lib.Statistics],
]

# Ratios outside are counted: on-policy they should all be close to 1.
_NEAR_ONE = (0.9, 1.1)
# Above this many layers a fully unrolled scan costs more compile time than it
# saves in running time.
_MAX_UNROLLED_LAYERS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
  """How packed rows are scored; static in every program."""

  temperature: float
  chunk_tokens: int  # entries the head scores at once, over all rows


def _unroll(arch: transformer.Architecture) -> int:
  """Layers per scan iteration."""
  if arch.num_layers > _MAX_UNROLLED_LAYERS:
    return 1
  # Without the scan XLA would find what remat computes again, and keep it.
  return arch.num_layers if arch.remat == "none" else 1


def score_batch(
  arch: transformer.Architecture,
  scoring: Scoring,
  params,
  batch: device_batch.TrainBatch,
  *,
  with_entropy: bool = False,
):
  """(logprobs [B, E], entropies [B, E] or None), float32, of a packed batch."""
  hidden_BTD, _ = transformer.forward(
    arch,
    params,
    batch.tokens_BT,
    batch.positions_BT,
    attention.tree_attend(batch.subtree_end_BT),
    unroll=_unroll(arch),
  )
  return logprobs.entry_logprobs(
    arch,
    params,
    hidden_BTD,
    batch.parent_BE,
    batch.target_BE,
    temperature=scoring.temperature,
    chunk_tokens=scoring.chunk_tokens,
    with_entropy=with_entropy,
  )


def policy_params(arch: transformer.Architecture, trained, reference_params):
  """What `arch` computes with: all is trained, or adapters on their base."""
  if arch.lora is None:
    return trained
  return lora.combine(reference_params, trained)


def flow_grpo(
  arch: transformer.Architecture,
  scoring: Scoring,
  config: config_lib.LearnerConfig,
) -> Objective:
  """The loss of design section 5 with the options of `config`.

  `loss = sum w * (-surrogate + kl_coefficient * kl - entropy_coefficient * H)`.
  """
  clip = {"clip_low": config.clip_low, "clip_high": config.clip_high}

  def objective(params, reference_params, batch):
    with_entropy = config.entropy_coefficient != 0
    current_BE, entropy_BE = score_batch(
      arch,
      scoring,
      policy_params(arch, params, reference_params),
      batch,
      with_entropy=with_entropy,
    )
    behavior_BE, recomputed_BE = (
      batch.behavior_logprob_BE,
      batch.recomputed_logprob_BE,
    )
    old_BE = behavior_BE if recomputed_BE is None else recomputed_BE
    ratio_BE = _ratio(config.ratio, current_BE, old_BE, batch.sample_BE)
    used_BE = ratio_BE
    if config.importance_cap > 0 and recomputed_BE is None:
      used_BE = losses.truncate_ratio(ratio_BE, config.importance_cap)
    surrogate_BE = losses.surrogate(
      used_BE, batch.advantage_BE, dual_clip=config.dual_clip, **clip
    )
    if config.importance_cap > 0 and recomputed_BE is not None:
      surrogate_BE *= losses.truncated_weight(
        recomputed_BE, behavior_BE, config.importance_cap
      )
    terms = {"policy_loss": -(batch.weight_BE * surrogate_BE).sum()}
    loss = terms["policy_loss"]
    if config.kl_coefficient > 0:
      reference_BE, _ = score_batch(arch.base, scoring, reference_params, batch)
      reference_BE = jax.lax.stop_gradient(reference_BE)
      kl_BE = losses.kl(current_BE, reference_BE, config.kl_estimator)
      terms["kl"] = (batch.weight_BE * kl_BE).sum()
      loss += config.kl_coefficient * terms["kl"]
    if with_entropy:
      terms["entropy"] = (batch.weight_BE * entropy_BE).sum()
      loss -= config.entropy_coefficient * terms["entropy"]
    low_BE, high_BE = losses.clipped(used_BE, batch.advantage_BE, **clip)
    # What the learner thinks of the sampled tokens; recomputed logprobs leave
    # out how far the policy has moved since.
    now_BE = current_BE if recomputed_BE is None else recomputed_BE
    sums, maxima = _policy_statistics(
      ratio_BE, now_BE - behavior_BE, low_BE, high_BE, batch
    )
    sums |= terms
    return loss, statistics_lib.Statistics(sums=sums, maxima=maxima)

  return objective


def imitation(arch: transformer.Architecture, scoring: Scoring) -> Objective:
  """Supervised loss `-sum w * logprob` at temperature 1 (warm start)."""
  scoring = dataclasses.replace(scoring, temperature=1.0)

  def objective(params, reference_params, batch):
    params = policy_params(arch, params, reference_params)
    current_BE, _ = score_batch(arch, scoring, params, batch)
    loss = -(batch.weight_BE * current_BE).sum()
    real_BE = (batch.sample_BE >= 0).astype(current_BE.dtype)
    sums = {
      "nll": -(real_BE * current_BE).sum(),
      "tokens": real_BE.sum(),
    }
    return loss, statistics_lib.Statistics(sums=sums, maxima={})

  return objective


def _ratio(kind: str, current_BE, old_BE, sample_BE):
  if kind == "token":
    return losses.token_ratio(current_BE, old_BE)
  if kind == "sequence":
    return losses.sequence_ratio(current_BE, old_BE, sample_BE)
  raise ValueError(f"ratio {kind!r} is unknown; known: token, sequence")


def _policy_statistics(
  ratio_BE, drift_BE, low_BE, high_BE, batch: device_batch.TrainBatch
):
  """(sums, maxima) over the real entries; padding counts nowhere."""
  real_BE = batch.sample_BE >= 0
  one_BE = real_BE.astype(ratio_BE.dtype)
  # Of single tokens, whatever the ratio of the loss is taken over.
  outside_BE = (drift_BE < jnp.log(_NEAR_ONE[0])) | (
    drift_BE > jnp.log(_NEAR_ONE[1])
  )
  drift_BE = jnp.where(real_BE, jnp.abs(drift_BE), 0)
  ratio_BE = jnp.where(real_BE, ratio_BE, 0)
  sums = {
    "weight": batch.weight_BE.sum(),
    "tokens": one_BE.sum(),
    "ratio": ratio_BE.sum(),
    "drift_outside": (one_BE * outside_BE).sum(),
    "clip_low": (one_BE * low_BE).sum(),
    "clip_high": (one_BE * high_BE).sum(),
    "drift": drift_BE.sum(),
    "drift_histogram": statistics_lib.histogram(drift_BE, one_BE),
  }
  return sums, {"ratio": ratio_BE.max(), "drift": drift_BE.max()}
