"""The model a run starts from: loaded, or warm-started and saved."""

import asyncio
import contextlib
import dataclasses
import pathlib

import jax

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import sandboxes
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.models import lora, presets, sharding
from agentflow_jax.tasks import order
from agentflow_jax.training import (
  adapter_files,
  imitation,
  lessons,
  model_files,
  model_loading,
  traces,
  warm_start,
)
from agentflow_jax.training import run_dir as run_dir_lib

# Random-strategy episodes draw train questions under a stream of their own.
_STREAM = "traces"
_AT_ONCE = 64


async def start_model(
  world: world_lib.World,
  run_dir: run_dir_lib.RunDir,
  mesh: jax.sharding.Mesh,
  report: imitation.Report,
) -> model_loading.LoadedModel:
  """The model a run starts from; the same one when it is resumed.

  Raises as model_files.check_start does.
  """
  config = world.config
  model_files.check_start(config)
  kind = {
    "mesh": mesh,
    "dtype": config.model.dtype,
    "param_dtype": config.model.param_dtype,
    "remat": config.model.remat,
  }
  if config.model.checkpoint:
    return model_loading.load_model(config.model.checkpoint, **kind)
  if not model_files.is_described(run_dir.base):
    await _warm_start(world, run_dir, mesh, report)
  return model_loading.load_model(run_dir.base, **kind)


def start_policy(
  config: config_lib.Config,
  run_dir: run_dir_lib.RunDir,
  model: model_loading.LoadedModel,
  mesh: jax.sharding.Mesh,
) -> model_loading.LoadedModel:
  """What is trained: the start model, or fresh adapters on its very arrays.

  Raises:
    CheckpointError: the run's adapters were trained on another model.
  """
  settings = config.model.lora
  if settings.rank == 0:
    return model
  spec = lora.Lora(
    rank=settings.rank,
    alpha=settings.alpha,
    targets=tuple(settings.target_modules),
  )
  base = run_dir.base.name  # moves along with the run
  if config.model.checkpoint:
    base = pathlib.Path(config.model.checkpoint).absolute()
  adapter_files.save(
    run_dir.model,
    adapter_files.describe(spec, base, model.params, run_dir.path),
  )
  arch = dataclasses.replace(model.arch, lora=spec)
  adapters = sharding.init_adapters(arch, jax.random.key(config.run.seed), mesh)
  return dataclasses.replace(
    model, arch=arch, params=lora.combine(model.params, adapters)
  )


async def _warm_start(
  world: world_lib.World,
  run_dir: run_dir_lib.RunDir,
  mesh: jax.sharding.Mesh,
  report: imitation.Report,
) -> None:
  """Trains the start model and saves it as RUN_DIR/base."""
  config = world.config
  report("running random-strategy episodes")
  found = await collect_traces(world)
  report("training the tokenizer")
  tokenizer = lessons.of(config).train_tokenizer(
    found, config.warm_start.vocab_size, run_dir.path / "tokenizer"
  )
  arch = dataclasses.replace(
    presets.ARCHITECTURES[config.model.preset],
    vocab_size=config.warm_start.vocab_size,
    dtype=config.model.dtype,
    remat=config.model.remat,
  )
  params = warm_start.train_planner(
    arch, found, tokenizer, config, mesh, report
  )
  model_loading.save_model(run_dir.base, arch, params, tokenizer)


async def collect_traces(world: world_lib.World) -> list[traces.Trace]:
  """Random-strategy episodes over the train questions.

  Raises:
    UserError: something that the tools need does not work.
  """
  config = world.config
  await sandboxes.check(config)
  source = world.train_tasks
  indices = order.TaskOrder(
    len(source), seed=config.run.seed, batch_size=1
  ).indices(0, config.warm_start.traces)
  found: list[trajectory_lib.Trajectory] = []
  async with contextlib.AsyncExitStack() as stack:
    # The planner needs the tools' names, which need the tools' engine.
    engines = agents_lib.Engines.of(config, {})
    stack.push_async_callback(engines.aclose)
    toolbox = agents_lib.build_toolbox(engines, world.index_dir)
    stack.push_async_callback(toolbox.aclose)
    lesson = lessons.of(config)
    planner = scripted.ScriptedEngine(
      {lesson.role: traces.random_planner(lesson.random_plan, list(toolbox))}
    )
    engines = agents_lib.Engines.of(config, {agents_lib.TRAINABLE: planner})
    stack.push_async_callback(engines.aclose)
    agents = agents_lib.build_agents(
      engines, toolbox, count_tokens=lambda text: 0
    )
    for first in range(0, len(indices), _AT_ONCE):
      # A task may come again, as another member: its plans are drawn anew.
      found += await asyncio.gather(
        *(
          agents.run(source[index], first + n, stream=_STREAM)
          for n, index in enumerate(indices[first : first + _AT_ONCE])
        )
      )
  read = [traces.from_trajectory(trajectory) for trajectory in found]
  return [trace for trace in read if trace.plans]
