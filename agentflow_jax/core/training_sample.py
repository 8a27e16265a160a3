"""TrainingSample: one trained completion with everything its loss needs."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSample:
  """One planner turn as the learner sees it.

  The loss of the sample is the sum over its completion tokens of
  `weight * per_token_loss(advantage)`; `weight` already holds the whole
  normaliser of the optimizer batch (design section 5), so no later split can
  change the gradient.

  Example: prompt (5, 6, 7), completion (8, 2), advantage 0.7,
  weight 1 / (N_trajectories * T_i * 2).
  """

  prompt_ids: np.ndarray  # int32 [P]
  completion_ids: np.ndarray  # int32 [A], eos included if it was sampled
  behavior_logprobs: np.ndarray  # float32 [A]
  advantage: float
  weight: float
  group: int  # index of the task in the rollout
  trajectory: int  # member index inside the group
  turn: int
  policy_version: int = 0

  def __post_init__(self):
    if len(self.completion_ids) != len(self.behavior_logprobs):
      raise ValueError(
        f"{len(self.completion_ids)} completion ids but "
        f"{len(self.behavior_logprobs)} behavior logprobs"
      )
