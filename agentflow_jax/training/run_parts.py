"""What a training run is made of, where it is, and what it reached."""

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import jax

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.training import progress, rollouts, stop_signal
from agentflow_jax.training import run_dir as run_dir_lib

# (task, member) -> the unscored trajectory of an evaluation episode.
RunEvaluation = Callable[
  [task_lib.Task, int], Awaitable[trajectory_lib.Trajectory]
]


class PolicySampler(Protocol):
  """The part of the sampler that training needs."""

  def update_params(self, params: Any, policy_version: int) -> None: ...

  def metrics(self, *, reset: bool = False) -> dict[str, float]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
  """Everything a run is made of, built by assembly.py."""

  config: config_lib.Config
  run_dir: run_dir_lib.RunDir
  learner: learner_lib.Learner
  mesh: jax.sharding.Mesh
  start_params: Any  # of the policy
  reference_params: Any  # of the frozen start model, the base of adapters
  sampler: PolicySampler
  rollouts: rollouts.RolloutRunner
  run_evaluation: RunEvaluation
  evaluation_tasks: Sequence[task_lib.Task]
  reward_fn: protocols.RewardFn
  progress: progress.Progress
  stop: stop_signal.StopSignal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
  """Where a run is, besides its arrays; in every checkpoint."""

  iteration: int = 0  # iterations done
  task_position: int = 0
  policy_version: int = 0  # of the learner, after those iterations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
  """What a complete run reached on the held-out questions.

  `before` is the accuracy of the start model (None if it was not evaluated),
  `after` and `families` those of the final weights.
  """

  before: float | None
  after: float
  families: dict[str, float]
  questions: int
  steps: int
  seconds: float
