"""Which samples an update may train on: those of recent enough weights.

Every sample is stamped with the policy version that drew its tokens; n is the
version after n updates. The update of version n takes samples of the versions
n - max_staleness to n. Ratios to the sampler's logprobs make up for some lag;
the bound says how much of it a run is willing to correct.
"""

from collections.abc import Iterable

from agentflow_jax.core import errors
from agentflow_jax.core import training_sample as training_sample_lib


class StaleTrajectoryError(errors.AgentFlowError):
  """A trajectory of other weights than the schedule of the run allows.

  The loop never makes one: it is a bug, and must not become a gradient.
  """


def admit(
  samples: Iterable[training_sample_lib.TrainingSample],
  *,
  policy_version: int,
  max_staleness: int,
) -> dict[str, float]:
  """Metrics of the samples' ages, if the update may train on all of them.

  Args:
    samples: of one update, in any order.
    policy_version: of the weights before the update.
    max_staleness: updates a sample may be behind them, at least 0.

  Returns:
    `staleness_mean` and `staleness_max` in updates; nothing without samples.

  Raises:
    StaleTrajectoryError: a sample is older, newer than the weights, or was
      drawn by an engine that stamps no version (-1).
  """
  ages = []
  for sample in samples:
    age = policy_version - sample.policy_version
    if not 0 <= age <= max_staleness or sample.policy_version < 0:
      raise StaleTrajectoryError(
        f"turn {sample.turn} of group {sample.group}, member "
        f"{sample.trajectory} was sampled by policy version "
        f"{sample.policy_version}; the update of version {policy_version} "
        f"takes those up to training.max_staleness={max_staleness} behind"
      )
    ages.append(age)
  if not ages:
    return {}
  return {
    "staleness_mean": sum(ages) / len(ages),
    "staleness_max": float(max(ages)),
  }
