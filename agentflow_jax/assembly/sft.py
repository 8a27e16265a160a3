"""Supervised fine-tuning on recorded trajectories, from config to run.

Flow: start model -> demonstrations -> imitation steps -> a run directory like
that of a training run: config.json, model/, checkpoints/, metrics.jsonl, so
whatever loads a run loads this one. Started again, it goes on.
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence

import jax
from absl import logging

from agentflow_jax.assembly import start
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import train_state
from agentflow_jax.models import sharding
from agentflow_jax.rollout import recorder
from agentflow_jax.training import (
  checkpointing,
  demonstrations,
  imitation,
  metrics_writer,
  model_files,
  model_loading,
  progress,
  stop_signal,
)
from agentflow_jax.training import run_dir as run_dir_lib

_RECORD = "sft.json"
_WARMUP_STEPS = 20  # at most, and a quarter of all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
  """What a complete run did; `loss` is that of its last step."""

  loss: float
  steps: int
  trajectories: int
  seconds: float


def run(
  config: config_lib.Config,
  run_dir: run_dir_lib.RunDir,
  rollouts: Sequence[str],
  *,
  min_reward: float,
  shown: progress.Progress,
  stop: stop_signal.StopSignal,
) -> Result | None:
  """Trains or resumes.

  Args:
    config: `model.checkpoint` is where it starts; of `learner` it uses what
      concerns optimizer, epochs, mini-batches and rows, and a short warm-up.
    run_dir: opened with this config.
    rollouts: record files, folders of them, or run directories.
    min_reward: of a trajectory that is imitated.
    shown: told how it is getting on.
    stop: asked after every step.

  Returns:
    What it reached, or None if it was stopped (and saved) before the end.

  Raises:
    UserError: the model or the records can not be used, or the run was started
      with other records.
  """
  started_s = time.monotonic()
  mesh = sharding.make_mesh(**dataclasses.asdict(config.mesh))
  shown.phase("loading the model")
  model = model_loading.load_model(
    config.model.checkpoint,
    mesh=mesh,
    dtype=config.model.dtype,
    param_dtype=config.model.param_dtype,
    remat=config.model.remat,
  )
  shown.phase("reading trajectories")
  found = demonstrations.read(
    recorder.find_files(rollouts),
    model.tokenizer,
    min_reward=min_reward,
    row_tokens=config.learner.row_tokens,
    roles=config.learner.trained_roles,
  )
  logging.info("demonstrations: %s", dict(found.counts))
  _check_same(run_dir, found, rollouts, min_reward)
  model_files.save_description(run_dir.model, model.arch, model.tokenizer)
  run_of = _Run(config, run_dir, model, found, mesh, shown, stop)
  loss = run_of.go()
  if loss is None:
    return None
  return Result(
    loss=loss,
    steps=run_of.steps,
    trajectories=len(found.trajectories),
    seconds=time.monotonic() - started_s,
  )


class _Run:
  """One attempt: from the latest checkpoint to the end or to a stop."""

  def __init__(
    self,
    config: config_lib.Config,
    run_dir: run_dir_lib.RunDir,
    model: model_loading.LoadedModel,
    found: demonstrations.Demonstrations,
    mesh: jax.sharding.Mesh,
    shown: progress.Progress,
    stop: stop_signal.StopSignal,
  ):
    self._config = config
    self._run_dir = run_dir
    self._base = model.params
    self._found = found
    self._mesh = mesh
    self._shown = shown
    self._stop = stop
    per_epoch = demonstrations.steps_per_epoch(
      found, config.learner.mini_batch_trajectories
    )
    self.steps = config.learner.epochs * per_epoch
    policy = start.start_policy(config, run_dir, model, mesh)
    self._learner = learner_lib.Learner(
      policy.arch,
      dataclasses.replace(
        config.learner, warmup_steps=min(_WARMUP_STEPS, self.steps // 4)
      ),
      temperature=1.0,
      mesh=mesh,
      total_steps=self.steps,
    )
    self._state = self._learner.init_state(policy.params)
    self._checkpointer = checkpointing.Checkpointer(
      run_dir.checkpoints,
      keep_last=config.training.keep_last,
      keep_best=False,
    )
    self._loss = float("nan")

  def go(self) -> float | None:
    """The last loss, or None if it was stopped."""
    config, training = self._config, self._config.training
    done = self._resume()
    stage = imitation.Stage(
      name="sft",
      steps=self.steps,
      first=done + 1,
      batches=demonstrations.batches(
        self._found,
        config.learner,
        self._mesh,
        seed=config.run.seed,
        first=done + 1,
      ),
    )
    self._shown.start(self.steps, done)
    with (
      contextlib.closing(self._checkpointer),
      metrics_writer.MetricsWriter(
        self._run_dir.path,
        tensorboard=training.tensorboard,
        wandb_project=training.wandb_project,
        resume_iteration=done if done else None,
      ) as self._writer,
    ):
      try:
        imitation.run(
          self._learner,
          self._state,
          stage,
          self._shown.phase,
          reference_params=self._base,
          after_step=self._after_step,
        )
      finally:
        self._shown.stop()
      if self._checkpointer.latest_step() != self.steps:
        return None
    return self._loss

  def _resume(self) -> int:
    """Steps done by earlier attempts."""
    done = self._checkpointer.latest_step()
    if done is None:
      return 0
    state, extra = self._checkpointer.restore(self._state.as_dict())
    self._state = train_state.TrainState(**state)
    self._loss = extra["loss"]
    logging.info("resuming after step %d", done)
    return done

  def _after_step(
    self, step: int, state: train_state.TrainState, metrics: dict[str, float]
  ) -> bool:
    self._loss = metrics["loss"]
    self._writer.write(iteration=step, step=int(state.step), metrics=metrics)
    self._shown.update({"iteration": step} | metrics)
    stopping = self._stop.requested
    due = step % self._config.training.checkpoint_every == 0
    if due or stopping or step == self.steps:
      self._checkpointer.save(
        step,
        state.as_dict(),
        {"loss": self._loss},
        wait=stopping or step == self.steps,
      )
    return not stopping


def _check_same(
  run_dir: run_dir_lib.RunDir,
  found: demonstrations.Demonstrations,
  rollouts: Sequence[str],
  min_reward: float,
) -> None:
  """Records what is trained on; a resumed run has to be given the same."""
  file = run_dir.path / _RECORD
  record = {
    "rollouts": [str(pathlib.Path(path).absolute()) for path in rollouts],
    "min_reward": min_reward,
    "counts": dict(found.counts),
    "digest": found.digest,
  }
  if not file.exists():
    run_dir_lib.atomic_write(file, json.dumps(record, indent=2) + "\n")
    return
  digest = json.loads(file.read_text(encoding="utf-8"))["digest"]
  if digest != found.digest:
    raise errors.UserError(
      f"{run_dir.path} was started with other trajectories ({file}); give the "
      "same ones, or another --out"
    )
