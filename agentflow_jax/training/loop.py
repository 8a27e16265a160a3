"""The outer loop: rollout -> samples -> update -> weight sync, and its record.

One iteration collects groups with the current policy, takes the optimizer
steps they give, hands the weights to the sampler, and writes a metrics line.
Evaluations come before, between and after. A checkpoint holds everything the
next iteration depends on, so a run that was killed anywhere and started again
ends with the bits of one that was not.

It is given its parts built (assembly.py) and holds no knowledge of engines,
tools or datasets.
"""

import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
from absl import logging

from agentflow_jax.batching import device_batch, samples
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import train_state
from agentflow_jax.rollout import group_rollout, recorder
from agentflow_jax.training import (
  checkpointing,
  metrics_writer,
  progress,
  rollouts,
  stop_signal,
)
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
  policy_version: int = 0


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


class Trainer:
  """Runs or resumes one training run."""

  def __init__(self, parts: Parts, started_s: float | None = None):
    """
    Args:
      parts: of the run; its run directory is open.
      started_s: `time.monotonic()` when the run began to be built, for its
        wall time; None is now.
    """
    training = parts.config.training
    self._parts = parts
    self._started_s = time.monotonic() if started_s is None else started_s
    self._checkpointer = checkpointing.Checkpointer(
      parts.run_dir.checkpoints,
      keep_last=training.keep_last,
      keep_best=training.keep_best,
    )
    self._earlier_s = 0.0  # of attempts before this one
    self._phase_s: dict[str, float] = {}
    self._state = parts.learner.init_state(parts.start_params)
    self._position = Position()
    self._accuracy: float | None = None  # of the weights as they are now

  async def run(self) -> Result | None:
    """Trains to the end, or to the next stop signal.

    Returns:
      What was reached, or None if the run was stopped and saved.
    """
    parts, training = self._parts, self._parts.config.training
    self._resume()
    resumed = self._position.iteration if parts.run_dir.resumed else None
    parts.progress.start(training.iterations, self._position.iteration)
    with (
      contextlib.closing(self._checkpointer),
      metrics_writer.MetricsWriter(
        parts.run_dir.path,
        tensorboard=training.tensorboard,
        wandb_project=training.wandb_project,
        resume_iteration=resumed,
      ) as self._writer,
    ):
      try:
        complete = await self._iterate()
      finally:
        parts.progress.stop()
    return self._result() if complete else None

  @property
  def steps(self) -> int:
    """Optimizer steps applied."""
    return int(self._state.step)

  async def _iterate(self) -> bool:
    training = self._parts.config.training
    if self._position.iteration == 0 and training.evaluate_first:
      await self._evaluate("before")
    while self._position.iteration < training.iterations:
      if self._parts.stop.requested:
        self._save(wait=True)
        return False
      await self._iteration()
      done = self._position.iteration
      if done == training.iterations:
        break
      if training.evaluate_every and done % training.evaluate_every == 0:
        await self._evaluate("during")
      if done % training.checkpoint_every == 0:
        self._save(wait=False)
    if not self._is_evaluated():
      await self._evaluate("after")
    self._save(wait=True)
    return True

  def _is_evaluated(self) -> bool:
    """True if an earlier attempt got to the end, and only that far."""
    here = (self._position.iteration, "after")
    return any(
      (line["iteration"], line["when"]) == here
      for line in metrics_writer.read_evaluations(self._parts.run_dir.path)
    )

  async def _iteration(self) -> None:
    """One rollout and the optimizer steps it gives."""
    parts = self._parts
    iteration = self._position.iteration + 1
    with self._phase("rollout"):
      rollout = await parts.rollouts.run(
        iteration, self._position.task_position
      )
    sampling = parts.sampler.metrics(reset=True)
    with self._phase("learn"):
      learning = self._learn(rollout.groups)
    version = self._position.policy_version + 1
    with self._phase("sync"):
      parts.sampler.update_params(self._policy_params(), version)
    with self._phase("record"):
      if iteration % parts.config.rollout.record_every == 0:
        path = recorder.iteration_path(parts.run_dir.path, iteration)
        recorder.record_all(path, iteration, rollout.trajectories)
    self._position = Position(
      iteration=iteration,
      task_position=rollout.position,
      policy_version=version,
    )
    self._accuracy = None
    metrics = (
      rollouts.rollout_metrics(rollout)
      | learning
      | {f"sampler/{name}": value for name, value in sampling.items()}
      | {f"phase_s/{name}": value for name, value in self._phase_s.items()}
    )
    metrics["time_s"] = self._seconds()
    metrics["tokens_per_s"] = (
      metrics["planner_tokens"] / self._phase_s["rollout"]
    )
    self._phase_s = {}  # what follows counts for the next line
    self._writer.write(iteration=iteration, step=self.steps, metrics=metrics)
    parts.progress.update({"iteration": iteration} | metrics)

  def _learn(
    self, groups: Sequence[trajectory_lib.TrajectoryGroup]
  ) -> dict[str, float]:
    """Optimizer steps over the groups; the mean of the steps' metrics."""
    parts, config = self._parts, self._parts.config
    sample_set = samples.build_samples(
      groups,
      config.learner,
      max_turns=config.agent.max_turns,
      max_completion_tokens=config.sampler.max_completion_tokens,
    )
    packed = [
      device_batch.make_micro_batches(mini_batch, config.learner, parts.mesh)
      for mini_batch in sample_set.mini_batches
    ]
    batches = [p.batches for p in packed]
    if config.learner.recompute_behavior:  # before the first step moves it
      batches = [
        parts.learner.recompute(self._policy_params(), b) for b in batches
      ]
    steps: list[dict[str, float]] = []
    for _ in range(config.learner.epochs):
      for micro_batches, cost in zip(batches, packed, strict=True):
        self._state, metrics = parts.learner.update(
          self._state, micro_batches, parts.reference_params
        )
        if micro_batches:
          steps.append(cost.metrics | metrics)
    return sample_set.metrics | _mean_of(steps)

  async def _evaluate(self, when: str) -> None:
    """Scores the evaluation questions with the weights as they are."""
    parts, config = self._parts, self._parts.config
    with self._phase("evaluate"):
      groups = await group_rollout.run_groups(
        parts.evaluation_tasks,
        parts.run_evaluation,
        parts.reward_fn,
        group_size=1,
        max_concurrent_episodes=config.rollout.max_concurrent_episodes,
        timeout_s=config.rollout.timeout_s,
      )
    parts.sampler.metrics(reset=True)  # not the next rollout's
    trajectories = [group.trajectories[0] for group in groups]
    summary = scores.summarise(trajectories, tasks=parts.evaluation_tasks)
    iteration = self._position.iteration
    path = parts.run_dir.evaluation_rollouts(when)
    recorder.record_all(path, iteration, trajectories)
    self._writer.write_evaluation(
      iteration=iteration, when=when, summary=summary
    )
    self._accuracy = summary["accuracy"]
    shown = {"accuracy": summary["accuracy"]} | {
      f"accuracy/{name}": value for name, value in summary["families"].items()
    }
    logging.info("evaluation %s: %s", when, shown)
    parts.progress.update({"iteration": iteration} | shown)

  def _result(self) -> Result:
    """Read back from the files, which also hold what earlier attempts did."""
    found = {
      line["when"]: line
      for line in metrics_writer.read_evaluations(self._parts.run_dir.path)
    }
    after = found["after"]
    return Result(
      before=found["before"]["accuracy"] if "before" in found else None,
      after=after["accuracy"],
      families=after["families"],
      questions=after["questions"],
      steps=self.steps,
      seconds=self._seconds(),
    )

  def _seconds(self) -> float:
    """Wall time of the run, with the attempts before this one."""
    return self._earlier_s + time.monotonic() - self._started_s

  def _save(self, *, wait: bool) -> None:
    iteration = self._position.iteration
    if iteration in self._checkpointer.all_steps():
      return  # a resumed run that had nothing left to do
    metrics = {} if self._accuracy is None else {"accuracy": self._accuracy}
    with self._phase("checkpoint"):
      self._checkpointer.save(
        iteration,
        self._state.as_dict(),
        dataclasses.asdict(self._position) | {"seconds": self._seconds()},
        metrics=metrics,
        wait=wait,
      )

  def _resume(self) -> None:
    """Goes back to the latest checkpoint, if there is one."""
    if self._checkpointer.latest_step() is None:
      return
    state, extra = self._checkpointer.restore(self._state.as_dict())
    self._state = train_state.TrainState(**state)
    self._earlier_s = extra.pop("seconds")
    self._position = Position(**extra)
    logging.info("resuming after iteration %d", self._position.iteration)
    self._parts.sampler.update_params(
      self._policy_params(), self._position.policy_version
    )

  def _policy_params(self) -> Any:
    """Shared with the state: valid until the next optimizer step."""
    parts = self._parts
    return parts.learner.policy_params(self._state, parts.reference_params)

  @contextlib.contextmanager
  def _phase(self, name: str) -> Iterator[None]:
    self._parts.progress.phase(name)
    started_s = time.monotonic()
    try:
      yield
    finally:
      elapsed_s = time.monotonic() - started_s
      self._phase_s[name] = self._phase_s.get(name, 0.0) + elapsed_s


def _mean_of(steps: Sequence[dict[str, float]]) -> dict[str, float]:
  if not steps:
    return {}
  return {
    name: sum(step[name] for step in steps) / len(steps) for name in steps[0]
  }
