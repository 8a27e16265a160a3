"""Group-normalised advantages of Flow-GRPO (design section 5).

Flow: the rewards of one task's G trajectories -> one advantage per trajectory,
which the caller broadcasts to every trained turn. Pure numpy; knows nothing of
tokens, weights or the optimizer batch.

Axes: G member of a group.
"""

import numpy as np

# Outside the root, as in the reference: A = (R - mean) / (std + EPSILON).
EPSILON = 1e-6
STATISTICS = ("trajectories", "turns")
BASELINES = ("group_mean", "leave_one_out", "none")


def group_advantages(
  rewards_G,
  valid_G,
  *,
  normalize_by_std: bool = True,
  turns_G=None,
  statistics_over: str = "trajectories",
  baseline: str = "group_mean",
) -> np.ndarray:
  """Advantages of one group; 0 where a member is invalid.

  `A_i = (R_i - mean_V R) / (std_V R + 1e-6)` over the valid members V, sample
  standard deviation (ddof 1). A group with fewer than two valid members or
  with equal rewards has nothing to compare, so all its advantages are exactly
  0. (The reference code gives a group of one its raw reward.) With the
  baseline "none" nothing is compared: every valid member keeps its reward.

  Args:
    rewards_G: float rewards; values at invalid members are never read.
    valid_G: bool, False for members lost to infrastructure.
    normalize_by_std: False divides by 1 instead (Dr. GRPO).
    turns_G: int trained turns per member, used by "turns" only.
    statistics_over: "trajectories" (arXiv 2510.05592, Eq. 7) or "turns": mean
      and std over turn rows, each repeating its trajectory's reward, so long
      trajectories count more (what the reference code computes).
    baseline: what is taken off a reward: "group_mean"; "leave_one_out", the
      mean of the other members (RLOO, arXiv 2402.14740, Eq. 7), under "turns"
      of their rows; or "none" (REINFORCE), which can not be normalised.

  Returns:
    float32 [G].

  Raises:
    ValueError: shapes differ, unknown statistics or baseline, "turns" without
      `turns_G`, "none" with `normalize_by_std`, or a valid reward that is not
      finite.

  Example: rewards (1, 0, 0, 1), all valid -> (0.866, -0.866, -0.866, 0.866).
  """
  rewards = np.asarray(rewards_G, np.float64)
  valid = np.asarray(valid_G, bool)
  if rewards.ndim != 1 or rewards.shape != valid.shape:
    raise ValueError(
      f"rewards_G {rewards.shape} and valid_G {valid.shape} must be equal and "
      "one-dimensional"
    )
  if not np.isfinite(rewards[valid]).all():
    raise ValueError(f"a valid reward is not finite: {rewards[valid].tolist()}")
  repeats = _repeats(rewards.shape, turns_G, statistics_over)
  _check_baseline(baseline, normalize_by_std)
  advantages = np.zeros(rewards.shape, np.float32)
  if baseline == "none":
    advantages[valid] = rewards[valid]
  else:
    advantages[valid] = _compared(
      rewards[valid], repeats[valid], baseline, normalize_by_std
    )
  return advantages


def _compared(rewards_V, repeats_V, baseline: str, normalize_by_std: bool):
  """The advantages of the valid members, [V] or 0."""
  rows = np.repeat(rewards_V, repeats_V)
  if len(rewards_V) < 2 or rewards_V.min() == rewards_V.max():
    return 0.0
  # Long trajectories may hold every row (the others never got a turn).
  if len(rows) < 2 or rows.min() == rows.max():
    return 0.0
  removed = rows.mean()
  if baseline == "leave_one_out":
    # No member holds every row here, so the others have at least one.
    others = len(rows) - repeats_V
    removed = (rows.sum() - rewards_V * repeats_V) / others
  scale = rows.std(ddof=1) + EPSILON if normalize_by_std else 1.0
  return (rewards_V - removed) / scale


def _check_baseline(baseline: str, normalize_by_std: bool):
  if baseline not in BASELINES:
    raise ValueError(f"baseline {baseline!r} is unknown; known: {BASELINES}")
  if baseline == "none" and normalize_by_std:
    raise ValueError('baseline="none" has no spread: normalize_by_std=False')


def _repeats(shape, turns_G, statistics_over: str) -> np.ndarray:
  """How many rows each member contributes to the statistics."""
  if statistics_over not in STATISTICS:
    raise ValueError(
      f"statistics_over {statistics_over!r} is unknown; known: {STATISTICS}"
    )
  if statistics_over == "trajectories":
    return np.ones(shape, np.int64)
  if turns_G is None:
    raise ValueError('statistics_over="turns" needs turns_G')
  turns = np.asarray(turns_G, np.int64)
  if turns.shape != shape:
    raise ValueError(f"turns_G {turns.shape} must have the shape {shape}")
  return turns
