"""The outer loop: rollout -> samples -> update -> weight sync, and its record.

One iteration collects groups with the current policy, takes the optimizer
steps they give, hands the weights to the sampler, and writes a metrics line.
Evaluations come before, between and after. A checkpoint holds everything the
next iteration depends on, so a run that was killed anywhere and started again
ends with the bits of one that was not.

With `training.max_staleness` the rollout of iteration n+1 runs beside update n,
which is in a thread, on a copy of the weights from before that update:

  update n     on version n-1, gives version n
  rollout n+1  on version n-1, trained in update n+1: one version behind

An evaluation waits for both. A checkpoint also holds the older weights, because
a rollout in flight is dropped at a stop or a kill and done again on them; so
where checkpoints and stops fall never changes a token.

It is given its parts built (assembly.py) and holds no knowledge of engines,
tools or datasets.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.learner import train_state
from agentflow_jax.rollout import group_rollout, recorder
from agentflow_jax.training import (
  checkpointing,
  metrics_writer,
  policy_update,
  rollout_ahead,
  rollouts,
  run_parts,
  weight_sync,
)

# Beside the train state in a checkpoint of an asynchronous run.
_OLDER = "rollout_params"


class Trainer:
  """Runs or resumes one training run."""

  def __init__(self, parts: run_parts.Parts, started_s: float | None = None):
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
    self._position = run_parts.Position()
    self._rollouts = rollout_ahead.RolloutAhead(
      parts.rollouts, lambda: parts.sampler.metrics(reset=True)
    )
    # What is trained of the weights that the next iteration's rollout uses,
    # where those are older than the learner's: its share of a checkpoint.
    self._older: Any = None
    self._accuracy: float | None = None  # of the weights as they are now

  async def run(self) -> run_parts.Result | None:
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
        await self._rollouts.cancel()
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
    parts, position = self._parts, self._position
    iteration = position.iteration + 1
    with self._phase("rollout"):
      done = await self._rollouts.take(iteration, position.task_position)
    rollout = done.rollout
    if self._asynchronous:
      learning = await self._update_beside_rollout(rollout)
    else:
      learning = self._update_alone(rollout)
    with self._phase("record"):
      if iteration % parts.config.rollout.record_every == 0:
        path = recorder.iteration_path(parts.run_dir.path, iteration)
        recorder.record_all(path, iteration, rollout.trajectories)
    self._position = run_parts.Position(
      iteration=iteration,
      task_position=rollout.position,
      policy_version=position.policy_version + 1,
    )
    self._accuracy = None
    metrics = (
      rollouts.rollout_metrics(rollout)
      | learning
      | {f"sampler/{name}": value for name, value in done.sampling.items()}
      | {f"phase_s/{name}": value for name, value in self._phase_s.items()}
    )
    metrics["time_s"] = self._seconds()
    metrics["tokens_per_s"] = metrics["planner_tokens"] / done.seconds
    self._phase_s = {}  # what follows counts for the next line
    self._writer.write(iteration=iteration, step=self.steps, metrics=metrics)
    where = {"iteration": iteration, "step": self.steps}
    parts.progress.update(where | metrics)

  def _update_alone(self, rollout: rollouts.Rollout) -> dict[str, float]:
    """The update of this iteration, then its weights to the sampler."""
    with self._phase("learn"):
      learning = self._learn(rollout.groups)
    with self._phase("sync"):
      self._publish(self._state.params, self._position.policy_version + 1)
    return learning

  async def _update_beside_rollout(
    self, rollout: rollouts.Rollout
  ) -> dict[str, float]:
    """The update of this iteration, while the next one's rollout runs."""
    position = self._position
    with self._phase("sync"):
      # Nothing is being sampled. The update donates the learner's own.
      self._older = weight_sync.snapshot(self._state.params)
      self._publish(self._older, position.policy_version)
    ahead = position.iteration + 2
    if ahead <= self._parts.config.training.iterations:
      self._rollouts.start(ahead, rollout.position)
    started_s = time.monotonic()
    with self._phase("learn"):
      learning = await asyncio.to_thread(self._learn, rollout.groups)
    update_s = time.monotonic() - started_s
    overlap_s = min(self._rollouts.ran_s(), update_s)
    return learning | {
      "overlap_s": overlap_s,
      "overlap_share": overlap_s / update_s,
    }

  def _learn(
    self, groups: Sequence[trajectory_lib.TrajectoryGroup]
  ) -> dict[str, float]:
    """Optimizer steps over the groups; their metrics."""
    parts = self._parts
    self._state, metrics = policy_update.update_policy(
      self._state,
      groups,
      policy_version=self._position.policy_version,
      learner=parts.learner,
      reference_params=parts.reference_params,
      mesh=parts.mesh,
      config=parts.config,
    )
    return metrics

  async def _evaluate(self, when: str) -> None:
    """Scores the evaluation questions with the weights as they are."""
    parts, config = self._parts, self._parts.config
    if self._asynchronous:  # the sampler is at the older weights
      with self._phase("rollout"):
        await self._rollouts.settle()
      with self._phase("sync"):
        self._publish(self._state.params, self._position.policy_version)
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
    where = {"iteration": iteration, "step": self.steps}
    parts.progress.update(where | shown)

  def _result(self) -> run_parts.Result:
    """Read back from the files, which also hold what earlier attempts did."""
    found = {
      line["when"]: line
      for line in metrics_writer.read_evaluations(self._parts.run_dir.path)
    }
    after = found["after"]
    return run_parts.Result(
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
        self._saved_arrays(),
        dataclasses.asdict(self._position) | {"seconds": self._seconds()},
        metrics=metrics,
        wait=wait,
      )

  def _resume(self) -> None:
    """Goes back to the latest checkpoint, if there is one."""
    if self._checkpointer.latest_step() is None:
      return
    state, extra = self._checkpointer.restore(self._saved_arrays())
    self._older = state.pop(_OLDER, None)
    self._state = train_state.TrainState(**state)
    self._earlier_s = extra.pop("seconds")
    self._position = run_parts.Position(**extra)
    logging.info("resuming after iteration %d", self._position.iteration)
    version = self._position.policy_version
    if self._asynchronous:
      self._publish(self._older, max(0, version - 1))
    else:
      self._publish(self._state.params, version)

  def _saved_arrays(self) -> dict[str, Any]:
    """What a checkpoint holds, as it is now."""
    arrays = self._state.as_dict()
    if self._asynchronous:
      older = self._state.params if self._older is None else self._older
      arrays[_OLDER] = older
    return arrays

  @property
  def _asynchronous(self) -> bool:
    return self._parts.config.training.max_staleness > 0

  def _publish(self, trained: Any, version: int) -> None:
    """Gives the sampler weights, which share the buffers of `trained`."""
    parts = self._parts
    state = dataclasses.replace(self._state, params=trained)
    params = parts.learner.policy_params(state, parts.reference_params)
    parts.sampler.update_params(params, version)

  @contextlib.contextmanager
  def _phase(self, name: str) -> Iterator[None]:
    self._parts.progress.phase(name)
    started_s = time.monotonic()
    try:
      yield
    finally:
      elapsed_s = time.monotonic() - started_s
      self._phase_s[name] = self._phase_s.get(name, 0.0) + elapsed_s
