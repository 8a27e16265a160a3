"""An agent that answers questions with a trained planner.

Flow: checkpoint -> the run it belongs to, and so its config -> models ->
samplers, tools, modules -> Solver, which answers one question after the other.
Nothing is written into the run.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import AsyncIterator

import jax
from absl import logging

from agentflow_jax.agent import episode
from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import questions
from agentflow_jax.assembly import samplers as samplers_lib
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.models import sharding
from agentflow_jax.training import model_files, model_loading
from agentflow_jax.training import run_dir as run_dir_lib

# Questions come one by one: a slot for each module whose prompts grow.
_SLOTS = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
  """Answers questions; `open_solver` makes one.

  Example:
    async with open_solver(config, "runs/quickstart-seed0") as solver:
      task = questions.to_task("What is the capital of Laos?")
      trajectory = await solver.solve(task)
  """

  agents: agents_lib.Agents
  engines: agents_lib.Engines  # of the agents, and of a judge
  models: samplers_lib.Models | None = None  # behind them, if there are any

  async def solve(
    self, task: task_lib.Task, on_turn: episode.OnTurn | None = None
  ) -> trajectory_lib.Trajectory:
    """One episode, with the limits of an evaluation.

    Args:
      task: any; `questions.to_task` makes one of a question.
      on_turn: told of every turn as it is finished.

    Returns:
      The unscored trajectory; a failed host is a StopReason in it.
    """
    return await self.agents.run(
      task, 0, stream=questions.STREAM, evaluation=True, on_turn=on_turn
    )


@contextlib.asynccontextmanager
async def open_solver(
  config: config_lib.Config,
  checkpoint: str | os.PathLike,
  *,
  slots: int = _SLOTS,
) -> AsyncIterator[Solver]:
  """Builds everything that answers; closed when the block ends.

  Args:
    config: validated; of the run, or for a model that comes alone.
    checkpoint: as in `model_loading.load_model`: the policy.
    slots: of each sampler; more than the default for many questions at once.

  Raises:
    CheckpointError: no model is there, or the one of "frozen" is not.
    ConfigError: the config does not fit the model or the devices.
  """
  run = model_files.find_run(checkpoint)
  # One replica: nothing here is split over data.
  tensor = config.mesh.tensor
  mesh = sharding.make_mesh(
    1, 1, tensor, devices=jax.local_devices()[: max(1, tensor)]
  )
  config = dataclasses.replace(
    config, sampler=dataclasses.replace(config.sampler, slots=slots)
  )
  models = _load_models(config, checkpoint, run, mesh)
  data_dir = config.tasks.data_dir or (run or run_dir_lib.cache_dir()) / "data"
  async with samplers_lib.open_agents(
    config,
    models,
    mesh,
    world_lib.search_index(config, pathlib.Path(data_dir)),
  ) as built:
    yield Solver(agents=built.agents, engines=built.engines, models=models)


def _load_models(
  config: config_lib.Config,
  checkpoint: str | os.PathLike,
  run: pathlib.Path | None,
  mesh: jax.sharding.Mesh,
) -> samplers_lib.Models:
  """The policy, and the start model where "frozen" modules ask for it."""

  def load(path: str | os.PathLike) -> model_loading.LoadedModel:
    logging.info("loading %s", path)
    return model_loading.load_model(
      path,
      mesh=mesh,
      dtype=config.model.dtype,
      param_dtype=config.model.param_dtype,
    )

  policy = frozen = load(checkpoint)
  if agents_lib.FROZEN in samplers_lib.model_engines(config):
    if config.model.checkpoint:
      frozen = load(config.model.checkpoint)
    elif run is not None:
      frozen = load(run_dir_lib.for_paths(run).base)
    else:
      logging.info("frozen modules are answered by %s too", checkpoint)
  return samplers_lib.Models(policy=policy, frozen=frozen)
