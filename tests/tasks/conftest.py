"""The world's real search index, and a real agent with scripted modules."""

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from agentflow_jax.agent import episode
from agentflow_jax.agent import executor as executor_lib
from agentflow_jax.agent import generator as generator_lib
from agentflow_jax.agent import planner as planner_lib
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.agent import verifier as verifier_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.rewards import rule_reward
from agentflow_jax.tasks.worldfacts import pages, rules
from agentflow_jax.tools import bm25_index, registry

_ROLE = messages_lib.ModuleRole


class WorldfactsAgent:
  """Real modules, tools and rewards; only the planner is given.

  `plan` maps a planner prompt to a plan text.
  """

  def __init__(self, index_dir: str):
    self._index_dir = index_dir

  def solve(
    self,
    tasks: Sequence[task_lib.Task],
    plan: Callable[[str], str],
    **config: int | str | tuple[str, ...],
  ) -> list[trajectory_lib.Trajectory]:
    """Scored trajectories; `config` overrides fields of agent and tools."""
    return asyncio.run(self._solve(tasks, plan, config))

  async def _solve(self, tasks, plan, config):
    settings = config_lib.Config()
    settings.agent.max_turns = 4
    settings.agent.prompt_style = "compact"
    settings.tools.search_top_k = 1
    for name, value in config.items():
      section = (
        settings.agent if hasattr(settings.agent, name) else (settings.tools)
      )
      assert hasattr(section, name), name
      setattr(section, name, value)
    engine = scripted.ScriptedEngine(
      {**rules.rules(), _ROLE.PLANNER: lambda text, context: plan(text)}
    )
    sampling = engine_lib.SamplingParams()
    modules = settings_lib.AgentModules(
      planner=planner_lib.Planner(engine, sampling),
      executor=executor_lib.Executor(engine, sampling),
      verifier=verifier_lib.Verifier(engine, sampling),
      generator=generator_lib.Generator(engine, sampling),
      count_tokens=len,
    )
    tools = registry.build(
      settings.tools,
      registry.Resources(
        engine=engine, sampling=sampling, search_index_dir=self._index_dir
      ),
    )
    episode_settings = settings_lib.EpisodeSettings.from_config(
      settings, evaluation=False
    )
    score = rule_reward.RuleReward({task.scorer for task in tasks})
    scored = []
    for task in tasks:
      trajectory = await episode.run_episode(
        task,
        modules,
        tools,
        episode_settings,
        engine_lib.CallContext(role=_ROLE.PLANNER),
      )
      scored.append(trajectory.replace_reward(await score(trajectory)))
    await tools.aclose()
    return scored


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory) -> str:
  directory = tmp_path_factory.mktemp("worldfacts") / "index"
  bm25_index.build(
    (
      bm25_index.Passage(id=page_id, title=title, text=text)
      for page_id, title, text in pages.passages()
    ),
    directory,
  )
  return str(directory)


@pytest.fixture(scope="session")
def index(index_dir) -> bm25_index.Bm25Index:
  return bm25_index.Bm25Index.open(index_dir)


@pytest.fixture(scope="session")
def agent(index_dir) -> WorldfactsAgent:
  return WorldfactsAgent(index_dir)


@pytest.fixture
def rng() -> random.Random:
  return random.Random(7)
