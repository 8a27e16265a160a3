"""The terms of the Flow-GRPO loss, as pure functions of arrays.

Flow: logprobs of the current and the behavior policy -> ratio (per token, or
per sample for GSPO) -> optional truncation -> clipped surrogate per entry; KL
to the reference per entry. The caller sums them with weights that already hold
every normaliser (design section 5), so nothing here averages.

Entry by entry, in the dtype of the inputs (float32 in training). Padding
entries get finite values; their weight is 0.

Sources: clipped surrogate, PPO (arXiv 1707.06347) Eq. 7; two clip bounds, DAPO
(arXiv 2503.14476) Eq. 10; dual clip, arXiv 1912.09729 Eq. 5; truncated
importance weights, IMPALA (arXiv 1802.01561) Section 4.1; sequence ratio, GSPO
(arXiv 2507.18071) Eq. 5-7; KL estimators, Schulman 2020, "Approximating KL
Divergence"; their place in the loss, Flow-GRPO (arXiv 2510.05592) Eq. 5.

Axes: B row, E loss entry (one per trained token).
"""

import jax
import jax.numpy as jnp

# exp(20) is still far from overflow; beyond it a log-ratio has no gradient.
MAX_LOG_RATIO = 20.0
# k3 grows exponentially; beyond this it has no gradient (as in the reference).
MAX_K3 = 10.0


def token_ratio(current_BE, behavior_BE):
  """`rho = exp(current - behavior)`, the log-ratio clipped to +-20."""
  _check(current_BE, behavior_BE)
  return jnp.exp(_clip_log_ratio(current_BE - behavior_BE))


def sequence_ratio(current_BE, behavior_BE, sample_BE):
  """GSPO's length-normalised ratio, repeated at each entry of its sample.

  `s_i = exp(mean over the tokens of sample i of (current - behavior))`. The
  entries of one sample have one weight and one advantage, so summing the
  surrogate over them is GSPO's sequence objective, gradient included.

  Args:
    current_BE: logprobs now.
    behavior_BE: logprobs when sampled.
    sample_BE: int, sample number inside the row; -1 for padding (ratio 1).
  """
  _check(current_BE, behavior_BE)
  if sample_BE.shape != current_BE.shape:
    raise ValueError(f"sample_BE {sample_BE.shape} != {current_BE.shape}")
  real_BE = sample_BE >= 0
  segment_BE = jnp.maximum(sample_BE, 0)

  def total_of_own_sample(values_E, segment_E):
    # A sample has at least one entry, so E segments always suffice.
    return jax.ops.segment_sum(values_E, segment_E, len(values_E))[segment_E]

  total = jax.vmap(total_of_own_sample)
  sums_BE = total(jnp.where(real_BE, current_BE - behavior_BE, 0), segment_BE)
  counts_BE = total(real_BE.astype(current_BE.dtype), segment_BE)
  mean_BE = jnp.where(real_BE, sums_BE / jnp.maximum(counts_BE, 1), 0)
  return jnp.exp(_clip_log_ratio(mean_BE))


def truncate_ratio(ratio_BE, cap: float):
  """Truncated importance weights: `rho * min(1, cap / rho)`, factor constant.

  The value is `min(rho, cap)` and the gradient `min(rho, cap) * grad log pi`:
  unlike clipping it limits how much a token counts without silencing it.
  """
  _check(ratio_BE)
  factor_BE = jnp.minimum(1.0, cap / ratio_BE)
  return ratio_BE * jax.lax.stop_gradient(factor_BE)


def truncated_weight(new_BE, old_BE, cap: float):
  """`min(exp(new - old), cap)`, a constant: how much to trust each token.

  Corrects for data that was drawn with the logprobs `old` while the ratio is
  taken to `new` (arXiv 2505.24298, Eq. 5, truncated).
  """
  _check(new_BE, old_BE)
  weight_BE = jnp.exp(_clip_log_ratio(new_BE - old_BE))
  return jax.lax.stop_gradient(jnp.minimum(weight_BE, cap))


def surrogate(
  ratio_BE, advantage_BE, *, clip_low: float, clip_high: float, dual_clip: float
):
  """The clipped objective, to be maximised.

  `min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A)`, and for A < 0 at
  least `dual_clip * A` when `dual_clip` > 0 (a bound on how much one unlikely
  bad token can count).
  """
  _check(ratio_BE, advantage_BE)
  clipped_BE = jnp.clip(ratio_BE, 1.0 - clip_low, 1.0 + clip_high)
  objective_BE = jnp.minimum(ratio_BE * advantage_BE, clipped_BE * advantage_BE)
  if dual_clip > 0:
    bound_BE = jnp.maximum(objective_BE, dual_clip * advantage_BE)
    objective_BE = jnp.where(advantage_BE < 0, bound_BE, objective_BE)
  return objective_BE


def clipped(ratio_BE, advantage_BE, *, clip_low: float, clip_high: float):
  """(low, high): bool, where clipping silences the gradient of an entry."""
  _check(ratio_BE, advantage_BE)
  low_BE = (advantage_BE < 0) & (ratio_BE < 1.0 - clip_low)
  high_BE = (advantage_BE > 0) & (ratio_BE > 1.0 + clip_high)
  return low_BE, high_BE


def kl(current_BE, reference_BE, estimator: str):
  """Per-token estimate of KL(current || reference) from the sampled token.

  With `r = reference - current`, clipped to +-20: k1 = -r (unbiased, any sign;
  its gradient is zero on average), k2 = r^2 / 2, k3 = exp(r) - 1 - r (unbiased
  and never negative), the last at most 10.

  Raises:
    ValueError: unknown estimator.
  """
  _check(current_BE, reference_BE)
  r_BE = _clip_log_ratio(reference_BE - current_BE)
  if estimator == "k1":
    return -r_BE
  if estimator == "k2":
    return 0.5 * jnp.square(r_BE)
  if estimator == "k3":
    # expm1 keeps the small values of nearly equal policies exact.
    return jnp.minimum(jnp.expm1(r_BE) - r_BE, MAX_K3)
  raise ValueError(f"kl_estimator {estimator!r} is unknown; known: k1, k2, k3")


def _clip_log_ratio(log_ratio_BE):
  return jnp.clip(log_ratio_BE, -MAX_LOG_RATIO, MAX_LOG_RATIO)


def _check(*arrays_BE):
  """Rank 2, one floating dtype, equal shapes: no silent broadcasting."""
  first = arrays_BE[0]
  for array in arrays_BE:
    if array.ndim != 2 or array.shape != first.shape:
      raise ValueError(
        f"expected equal [B, E] shapes, got {[a.shape for a in arrays_BE]}"
      )
    if array.dtype != first.dtype or not jnp.issubdtype(
      array.dtype, jnp.floating
    ):
      raise TypeError(
        f"expected one float dtype, got {[str(a.dtype) for a in arrays_BE]}"
      )
