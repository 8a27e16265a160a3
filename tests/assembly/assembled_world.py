"""Worldfacts agents, built the way a run builds them, without a model."""

import contextlib
import pathlib

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, providers
from agentflow_jax.rewards import rule_reward
from agentflow_jax.rollout import group_rollout
from agentflow_jax.tasks.worldfacts import random_strategy
from agentflow_jax.testing import byte_tokenizer, scripted_engine


def config(**settings) -> config_lib.Config:
  """The quickstart's agent; `settings` are dotted keys with "__" for "."."""
  made = config_lib.Config()
  made.agent.prompt_style = "compact"
  made.agent.max_turns = 4
  made.tools.search_top_k = 1
  made.engines.executor = providers.SCRIPTED_WORLDFACTS
  made.engines.verifier = providers.SCRIPTED_WORLDFACTS
  made.engines.generator = providers.SCRIPTED_WORLDFACTS
  made.engines.tool = providers.SCRIPTED_WORLDFACTS
  made.learner.row_tokens = (
    made.sampler.max_prompt_tokens + made.sampler.max_completion_tokens
  )
  made.rollout.tasks = 3
  made.rollout.group_size = 2
  made.rollout.min_group = 1
  for name, value in settings.items():
    config_validation.put(made, name.replace("__", "."), value)
  config_validation.validate(made)
  return made


def oracle():
  """A policy with token ids that plans rightly."""
  return scripted_engine.FakePolicyEngine(
    byte_tokenizer.ByteTokenizer(),
    lambda text, context: random_strategy.oracle_plan(text),
  )


@contextlib.asynccontextmanager
async def open_agents(made: config_lib.Config, data_dir, models):
  """(world, engines, toolbox, agents) of a config."""
  world = world_lib.open_world(made, pathlib.Path(data_dir))
  async with contextlib.AsyncExitStack() as stack:
    engines = agents_lib.Engines.of(made, models)
    stack.push_async_callback(engines.aclose)
    toolbox = agents_lib.build_toolbox(engines, world.index_dir)
    stack.push_async_callback(toolbox.aclose)
    agents = agents_lib.build_agents(
      engines, toolbox, count_tokens=lambda text: len(text.encode("utf-8"))
    )
    yield world, engines, toolbox, agents


async def rollout(made, world, agents, step=1):
  """One iteration's groups."""
  tasks = [world.train_tasks[i] for i in range(made.rollout.tasks)]
  return await group_rollout.run_groups(
    tasks,
    lambda task, member: agents.run(task, member, stream="train", step=step),
    rule_reward.RuleReward({task.scorer for task in tasks}),
    group_size=made.rollout.group_size,
    max_concurrent_episodes=made.rollout.max_concurrent_episodes,
    timeout_s=made.rollout.timeout_s,
    min_group=made.rollout.min_group,
  )
