"""Demonstrations: somebody who can plan answers train questions, on record.

The teacher is the scripted planner of worldfacts, which takes the shortest way
and knows no facts, or a model behind an API (engines.planner). It is asked the
questions that a training run of this seed is asked, in that order, so that
imitation and training see the same ones.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import evaluator, judging, samplers, sandboxes
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors, providers, token_estimate
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.hf import tokenizer as hf_tokenizer
from agentflow_jax.rollout import group_rollout, recorder
from agentflow_jax.tasks import order, sources
from agentflow_jax.tasks.worldfacts import random_strategy
from agentflow_jax.training import model_files

_STREAM = "demonstrations"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
  """How many episodes are on record, and how many of them are right."""

  episodes: int
  right: int


async def record(
  config: config_lib.Config,
  out: pathlib.Path,
  *,
  questions: int,
  data_dir: pathlib.Path,
) -> Recorded:
  """Records one episode of each of the first `questions` train questions.

  Args:
    config: `engines.planner` is the teacher; "trainable" stands for the
      scripted planner of worldfacts.
    out: the record file, as launch/sft.py reads it; whole or absent.
    questions: asked again once all of them were.
    data_dir: where worldfacts and its index are, or are put.

  Raises:
    ConfigError: no teacher for these tasks, or he needs a model.
    UserError: something that the tools need does not work.
  """
  await sandboxes.check(config)
  world = world_lib.open_world(config, data_dir)
  tasks = world.train_tasks
  indices = order.TaskOrder(
    len(tasks), seed=config.run.seed, batch_size=config.rollout.tasks
  ).indices(0, questions)
  async with _open_teacher(config, world) as (agents, engines):

    async def run(
      task: task_lib.Task, member: int
    ) -> trajectory_lib.Trajectory:
      return await agents.run(task, member, stream=_STREAM)

    # Each once: a question that comes again would be answered the same way.
    groups = await group_rollout.run_groups(
      [tasks[index] for index in dict.fromkeys(indices)],
      run,
      judging.build_reward(engines, world.scorers),
      group_size=1,
      max_concurrent_episodes=config.rollout.max_concurrent_episodes,
      timeout_s=config.rollout.timeout_s,
    )
  found = [group.trajectories[0] for group in groups]
  recorder.record_all(out, 0, found)
  right = sum((one.reward or 0.0) >= 1.0 for one in found if not one.masked)
  return Recorded(episodes=len(found), right=right)


@contextlib.asynccontextmanager
async def _open_teacher(
  config: config_lib.Config, world: world_lib.World
) -> AsyncIterator[tuple[agents_lib.Agents, agents_lib.Engines]]:
  if config.engines.planner != providers.TRAINABLE:
    request = evaluator.Request(
      benchmarks={},
      out=pathlib.Path(),
      # Only somebody's frozen modules are models here.
      checkpoint=(
        config.model.checkpoint if samplers.model_engines(config) else ""
      ),
    )
    async with evaluator.open_answerers(config, request) as (agents, engines):
      assert agents is not None  # the solver is the agent
      yield agents, engines
    return
  others = samplers.model_engines(config) - {providers.TRAINABLE}
  if config.tasks.train != sources.WORLDFACTS or others:
    raise errors.ConfigError(
      "the scripted planner only knows worldfacts with scripted modules; name "
      "a teacher: --config.engines.planner=PROVIDER:MODEL"
    )
  planner = scripted.ScriptedEngine(
    {
      messages_lib.ModuleRole.PLANNER: lambda text, context: (
        random_strategy.oracle_plan(text)
      )
    }
  )
  async with contextlib.AsyncExitStack() as stack:
    engines = agents_lib.Engines.of(config, {providers.TRAINABLE: planner})
    stack.push_async_callback(engines.aclose)
    toolbox = agents_lib.build_toolbox(engines, world.index_dir)
    stack.push_async_callback(toolbox.aclose)
    await toolbox.check()
    yield (
      agents_lib.build_agents(engines, toolbox, _count_tokens(config)),
      engines,
    )


def _count_tokens(config: config_lib.Config) -> Callable[[str], int]:
  """As the model counts that will imitate: it cuts long memories likewise."""
  if not config.model.checkpoint:
    return token_estimate.estimate_tokens
  path = pathlib.Path(config.model.checkpoint)
  described = [
    one for one in (path, path / "model") if model_files.is_described(one)
  ]
  if described:
    path = model_files.tokenizer_dir(described[0])
  encode = hf_tokenizer.HfTokenizer.from_directory(path).encode
  return lambda text: len(encode(text))
