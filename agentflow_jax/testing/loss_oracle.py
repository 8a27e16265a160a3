"""Design section 5 once more: slow, float64, one token at a time.

An independent second opinion for tests. It starts from per-sample logprobs
(never from rows, masks or entries), shares no code with batching or learner,
and is written as close to the formulas as Python allows. No gradients.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class OracleSample:
  """One completion; lists hold one number per token.

  Example: OracleSample(current=[-1.0], behavior=[-1.1], advantage=0.5,
  weight=1.0).
  """

  current: Sequence[float]
  behavior: Sequence[float]
  advantage: float
  weight: float
  recomputed: Sequence[float] = ()  # the old policy's, where not the behavior's
  reference: Sequence[float] = ()
  entropy: Sequence[float] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class OracleOptions:
  """The loss options of `LearnerConfig`, with every option off by default."""

  clip_low: float = 0.2
  clip_high: float = 0.3
  dual_clip: float = 0.0
  ratio: str = "token"
  importance_cap: float = 0.0
  kl_coefficient: float = 0.0
  kl_estimator: str = "k3"
  entropy_coefficient: float = 0.0


def oracle_advantages(
  rewards: Sequence[float | None],
  *,
  normalize_by_std: bool = True,
  turns: Sequence[int] | None = None,
  leave_one_out: bool = False,
) -> list[float]:
  """One advantage per member; None rewards are members lost to machinery.

  With `turns` the statistics are taken over turn rows (the reference code).
  With `leave_one_out` (without `turns`) the mean is that of the others.
  """
  repeats = [1] * len(rewards) if turns is None else list(turns)
  rows = [
    reward
    for reward, n in zip(rewards, repeats, strict=True)
    if reward is not None
    for _ in range(n)
  ]
  valid = [reward for reward in rewards if reward is not None]
  if len(valid) < 2 or len(set(valid)) == 1 or len(set(rows)) < 2:
    return [0.0] * len(rewards)
  mean = sum(rows) / len(rows)
  variance = sum((row - mean) ** 2 for row in rows) / (len(rows) - 1)
  divisor = math.sqrt(variance) + 1e-6 if normalize_by_std else 1.0
  advantages = []
  for reward in rewards:
    if leave_one_out and reward is not None:
      mean = (sum(rows) - reward) / (len(rows) - 1)
    advantages.append(0.0 if reward is None else (reward - mean) / divisor)
  return advantages


def oracle_weight(
  lengths: Sequence[Sequence[int]],
  trajectory: int,
  turn: int,
  aggregation: str,
  *,
  max_turns: int,
  max_tokens: int,
) -> float:
  """`w_itj` of design section 5.

  Args:
    lengths: completion length per turn, per valid trajectory of the batch.
    trajectory: i.
    turn: t.
    aggregation: a row of the table.
    max_turns: T_max.
    max_tokens: L_max.
  """
  tokens_here = lengths[trajectory][turn]
  if aggregation == "flow":
    return 1 / (len(lengths) * len(lengths[trajectory]) * tokens_here)
  if aggregation == "token_mean":
    return 1 / sum(n for turns in lengths for n in turns)
  if aggregation == "turn_mean":
    return 1 / (sum(len(turns) for turns in lengths) * tokens_here)
  if aggregation == "constant":
    return 1 / (len(lengths) * max_turns * max_tokens)
  raise ValueError(aggregation)


def oracle_loss(
  samples: Sequence[OracleSample], options: OracleOptions
) -> float:
  """The loss of an optimizer batch, summed token by token."""
  loss = 0.0
  for sample in samples:
    sequence = _sequence_log_ratio(sample)
    old = sample.recomputed or sample.behavior
    for j, current in enumerate(sample.current):
      log_ratio = current - old[j]
      if options.ratio == "sequence":
        log_ratio = sequence
      term = -_surrogate(
        log_ratio, sample.advantage, options, truncate=not sample.recomputed
      )
      if sample.recomputed and options.importance_cap:
        weight = math.exp(sample.recomputed[j] - sample.behavior[j])
        term *= min(weight, options.importance_cap)
      if options.kl_coefficient:
        term += options.kl_coefficient * _kl(
          current, sample.reference[j], options.kl_estimator
        )
      if options.entropy_coefficient:
        term -= options.entropy_coefficient * sample.entropy[j]
      loss += sample.weight * term
  return loss


def _sequence_log_ratio(sample: OracleSample) -> float:
  old = sample.recomputed or sample.behavior
  differences = [c - b for c, b in zip(sample.current, old, strict=True)]
  return sum(differences) / max(1, len(differences))


def _surrogate(
  log_ratio: float, advantage: float, options: OracleOptions, truncate: bool
) -> float:
  ratio = math.exp(max(-20.0, min(20.0, log_ratio)))
  if options.importance_cap and truncate:
    ratio = min(ratio, options.importance_cap)
  low, high = 1 - options.clip_low, 1 + options.clip_high
  value = min(ratio * advantage, max(low, min(high, ratio)) * advantage)
  if options.dual_clip and advantage < 0:
    value = max(value, options.dual_clip * advantage)
  return value


def _kl(current: float, reference: float, estimator: str) -> float:
  r = max(-20.0, min(20.0, reference - current))
  if estimator == "k1":
    return -r
  if estimator == "k2":
    return r * r / 2
  return min(math.exp(r) - 1 - r, 10.0)
