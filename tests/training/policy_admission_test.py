"""Which samples an update takes, and what it says about their ages."""

import numpy as np
import pytest

from agentflow_jax.core import training_sample
from agentflow_jax.training import admission


def _samples(*versions):
  return [
    training_sample.TrainingSample(
      prompt_ids=np.array([1], np.int32),
      completion_ids=np.array([2], np.int32),
      behavior_logprobs=np.array([-1.0], np.float32),
      advantage=1.0,
      weight=1.0,
      group=7,
      trajectory=3,
      turn=turn,
      policy_version=version,
    )
    for turn, version in enumerate(versions)
  ]


def test_ages_are_counted_from_the_weights_of_the_update():
  assert admission.admit(
    _samples(9, 10, 10, 10), policy_version=10, max_staleness=1
  ) == {"staleness_mean": 0.25, "staleness_max": 1}
  assert admission.admit(_samples(0), policy_version=0, max_staleness=0) == {
    "staleness_mean": 0,
    "staleness_max": 0,
  }
  assert admission.admit([], policy_version=3, max_staleness=1) == {}


@pytest.mark.parametrize(
  ("version", "now", "allowed"),
  [
    (9, 10, 0),
    (8, 10, 1),
    (11, 10, 1),  # from weights that do not exist yet
    (-1, 0, 1),  # from an engine without versions
  ],
)
def test_one_sample_that_is_too_old_is_enough(version, now, allowed):
  with pytest.raises(admission.StaleTrajectoryError) as caught:
    admission.admit(
      _samples(now, version), policy_version=now, max_staleness=allowed
    )
  for part in (
    "turn 1 of group 7, member 3",
    f"version {version};",
    f"version {now} ",
    f"training.max_staleness={allowed}",
  ):
    assert part in str(caught.value)
