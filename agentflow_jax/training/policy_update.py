"""The optimizer steps of one iteration.

Flow: TrajectoryGroups -> samples -> admission -> packed rows on the mesh ->
one `Learner.update` per mini-batch and epoch. Blocks until the last step is
done and touches nothing but its arguments, so that it may run in a thread.
"""

from collections.abc import Sequence
from typing import Any

import jax

from agentflow_jax.batching import device_batch, samples
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import train_state
from agentflow_jax.training import admission


def update_policy(
  state: train_state.TrainState,
  groups: Sequence[trajectory_lib.TrajectoryGroup],
  *,
  policy_version: int,
  learner: learner_lib.Learner,
  reference_params: Any,
  mesh: jax.sharding.Mesh,
  config: config_lib.Config,
) -> tuple[train_state.TrainState, dict[str, float]]:
  """Trains on the groups of one iteration; consumes `state`.

  Args:
    state: its buffers are donated, use the returned one.
    groups: scored.
    policy_version: of the weights in `state`.
    learner: of the policy.
    reference_params: of the frozen start model.
    mesh: where the batches go.
    config: of the run.

  Returns:
    (next state, metrics of the samples and the mean of the steps' metrics).

  Raises:
    StaleTrajectoryError: a sample is of weights that are too old.
    TrainingDivergedError: see `Learner.update`.
  """
  sample_set = samples.build_samples(
    groups,
    config.learner,
    max_turns=config.agent.max_turns,
    max_completion_tokens=config.sampler.max_completion_tokens,
  )
  staleness = admission.admit(
    (sample for batch in sample_set.mini_batches for sample in batch),
    policy_version=policy_version,
    max_staleness=config.training.max_staleness,
  )
  packed = [
    device_batch.make_micro_batches(mini_batch, config.learner, mesh)
    for mini_batch in sample_set.mini_batches
  ]
  batches = [p.batches for p in packed]
  if config.learner.recompute_behavior:  # before the first step moves it
    params = learner.policy_params(state, reference_params)
    batches = [learner.recompute(params, b) for b in batches]
  steps: list[dict[str, float]] = []
  for _ in range(config.learner.epochs):
    for micro_batches, cost in zip(batches, packed, strict=True):
      state, metrics = learner.update(state, micro_batches, reference_params)
      if micro_batches:
        steps.append(cost.metrics | metrics)
  return state, sample_set.metrics | staleness | _mean_of(steps)


def _mean_of(steps: Sequence[dict[str, float]]) -> dict[str, float]:
  if not steps:
    return {}
  return {
    name: sum(step[name] for step in steps) / len(steps) for name in steps[0]
  }
