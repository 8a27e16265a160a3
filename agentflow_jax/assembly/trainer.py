"""A training run, from its config to its last file.

Flow: tasks and index -> start model -> samplers -> agents -> learner ->
Trainer -> Hugging Face export -> report. Starting it again in the same run
directory goes on where it stopped.
"""

import dataclasses
import time

import jax
from absl import logging

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import judging, start
from agentflow_jax.assembly import samplers as samplers_lib
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rules, protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation.report import report
from agentflow_jax.hf import exporting
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import sharding
from agentflow_jax.rollout import steady_heap
from agentflow_jax.tasks import order
from agentflow_jax.training import (
  loop,
  model_files,
  model_loading,
  progress,
  rollouts,
  run_parts,
  stop_signal,
)
from agentflow_jax.training import run_dir as run_dir_lib

_TRAIN_STREAM = "train"
_EVALUATION_STREAM = "evaluation"


async def train(
  config: config_lib.Config,
  run_dir: run_dir_lib.RunDir,
  shown: progress.Progress,
  stop: stop_signal.StopSignal,
) -> run_parts.Result | None:
  """Runs or resumes a training run.

  Returns:
    What it reached, or None if it was stopped (and saved) before the end. A
    warm start that is stopped starts again: it is short and saves nothing.
  """
  started_s = time.monotonic()
  shown.phase("opening tasks")
  world = world_lib.open_world(config, run_dir.path / "data")
  mesh = sharding.make_mesh(**dataclasses.asdict(config.mesh))

  def report(text: str) -> None:
    stop.check()
    shown.phase(text)

  try:
    model = await start.start_model(world, run_dir, mesh, report)
  except stop_signal.Stopped:
    return None
  model_files.save_description(run_dir.model, model.arch, model.tokenizer)
  models = samplers_lib.Models(
    policy=start.start_policy(config, run_dir, model, mesh), frozen=model
  )
  shown.phase("compiling")
  async with samplers_lib.open_agents(
    config, models, mesh, world.index_dir
  ) as built:
    trainer = loop.Trainer(
      _parts(world, run_dir, models, mesh, built, shown, stop), started_s
    )
    with steady_heap.steady_heap():
      result = await trainer.run()
  if result is not None:
    _finish(config, run_dir, shown)
  return result


def _parts(
  world: world_lib.World,
  run_dir: run_dir_lib.RunDir,
  models: samplers_lib.Models,
  mesh: jax.sharding.Mesh,
  built: samplers_lib.BuiltAgents,
  shown: progress.Progress,
  stop: stop_signal.StopSignal,
) -> run_parts.Parts:
  config = world.config
  reward_fn = judging.build_reward(built.engines, world.scorers)

  async def evaluate(
    task: task_lib.Task, member: int
  ) -> trajectory_lib.Trajectory:
    return await built.agents.run(
      task, member, stream=_EVALUATION_STREAM, evaluation=True
    )

  return run_parts.Parts(
    config=config,
    run_dir=run_dir,
    learner=learner_lib.Learner(
      models.policy.arch,
      config.learner,
      temperature=config.sampler.temperature,
      mesh=mesh,
      total_steps=config_rules.optimizer_steps(config),
    ),
    mesh=mesh,
    start_params=models.policy.params,
    reference_params=models.frozen.params,
    sampler=built.samplers[agents_lib.TRAINABLE],
    rollouts=_rollouts(world, built, reward_fn),
    run_evaluation=evaluate,
    evaluation_tasks=world.evaluation_tasks,
    reward_fn=reward_fn,
    progress=shown,
    stop=stop,
  )


def _rollouts(
  world: world_lib.World,
  built: samplers_lib.BuiltAgents,
  reward_fn: protocols.RewardFn,
) -> rollouts.RolloutRunner:
  """Training episodes over the train tasks, in the seeded order."""
  config = world.config

  async def run_one(
    task: task_lib.Task, member: int, iteration: int
  ) -> trajectory_lib.Trajectory:
    return await built.agents.run(
      task, member, stream=_TRAIN_STREAM, step=iteration
    )

  return rollouts.RolloutRunner(
    source=world.train_tasks,
    order=order.TaskOrder(
      len(world.train_tasks),
      seed=config.run.seed,
      batch_size=config.rollout.tasks,
    ),
    run_one=run_one,
    reward_fn=reward_fn,
    config=config,
    host_metrics=lambda: (
      built.engines.metrics(reset=True)
      | built.agents.toolbox.metrics(reset=True)
      | judging.metrics(reward_fn)
    ),
  )


def _finish(
  config: config_lib.Config,
  run_dir: run_dir_lib.RunDir,
  shown: progress.Progress,
) -> None:
  """Exports the best weights and writes the report."""
  if config.training.export_hf:
    shown.phase("exporting")
    best = model_loading.load_model(run_dir.path)
    exporting.export_checkpoint(
      run_dir.hf,
      best.arch,
      best.params,
      tokenizer=best.tokenizer,
      param_dtype=config.model.param_dtype,
      generation={"temperature": config.sampler.temperature},
      overwrite=True,
      donate=True,
    )
    logging.info("exported %s", run_dir.hf)
  if config.training.write_report:
    shown.phase("writing the report")
    logging.info("wrote %s", report.write_report(run_dir.path))
