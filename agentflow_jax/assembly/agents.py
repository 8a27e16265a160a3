"""Engines, tools and modules: everything an episode is run with.

Flow: engine names of the config -> engines, with retries -> toolbox and the
four modules -> Agents, which runs episodes.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

from agentflow_jax.agent import episode, executor, generator, planner, verifier
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import retrying, scripted
from agentflow_jax.tasks.worldfacts import rules
from agentflow_jax.tools import registry as tools_registry

TRAINABLE, FROZEN = "trainable", "frozen"
_SCRIPTED = "scripted:worldfacts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agents:
  """Runs episodes with one set of engines and tools."""

  config: config_lib.Config
  modules: settings_lib.AgentModules
  toolbox: tools_registry.Toolbox

  async def run(
    self,
    task: task_lib.Task,
    member: int,
    *,
    stream: str,
    step: int = 0,
    evaluation: bool = False,
    on_turn: episode.OnTurn | None = None,
  ) -> trajectory_lib.Trajectory:
    """One episode; `stream`, `step` and `member` seed its sampling."""
    return await episode.run_episode(
      task,
      self.modules,
      self.toolbox,
      settings_lib.EpisodeSettings.from_config(self.config, evaluation),
      engine_lib.CallContext(
        role=messages_lib.ModuleRole.PLANNER,
        seed=self.config.run.seed,
        stream=stream,
        step=step,
        member=member,
      ),
      on_turn,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engines:
  """The engines by the names the config uses, each with its retries."""

  config: config_lib.Config
  by_name: Mapping[str, engine_lib.Engine]

  @classmethod
  def of(
    cls, config: config_lib.Config, models: Mapping[str, engine_lib.Engine]
  ) -> "Engines":
    """Adds the scripted engine to "trainable" and "frozen", where given."""
    engines = {_SCRIPTED: scripted.ScriptedEngine(rules.rules()), **models}
    return cls(
      config=config,
      by_name={
        name: retrying.RetryingEngine(
          engine, config.engines.retries, config.engines.call_timeout_s
        )
        for name, engine in engines.items()
      },
    )

  def for_role(
    self, role: str
  ) -> tuple[engine_lib.Engine, engine_lib.SamplingParams]:
    """Who answers for "planner", "executor", ... and how it is sampled."""
    name = getattr(self.config.engines, role)
    return self.by_name[name], sampling_of(self.config, name)


def build_toolbox(
  engines: Engines, index_dir: pathlib.Path
) -> tools_registry.Toolbox:
  """The enabled tools; close it when done."""
  engine, sampling = engines.for_role("tool")
  return tools_registry.build(
    engines.config.tools,
    tools_registry.Resources(
      engine=engine,
      sampling=sampling,
      search_index_dir=os.fspath(index_dir),
    ),
  )


def build_agents(
  engines: Engines,
  toolbox: tools_registry.Toolbox,
  count_tokens: Callable[[str], int],
) -> Agents:
  """The four modules over their engines; `count_tokens` bounds the memory."""
  return Agents(
    config=engines.config,
    modules=settings_lib.AgentModules(
      planner=planner.Planner(*engines.for_role("planner")),
      executor=executor.Executor(*engines.for_role("executor")),
      verifier=verifier.Verifier(*engines.for_role("verifier")),
      generator=generator.Generator(*engines.for_role("generator")),
      count_tokens=count_tokens,
    ),
    toolbox=toolbox,
  )


def sampling_of(
  config: config_lib.Config, spec: str
) -> engine_lib.SamplingParams:
  """How an engine is sampled: the policy by `sampler`, others as frozen."""
  if spec == TRAINABLE:
    sampler = config.sampler
    return engine_lib.SamplingParams(
      temperature=sampler.temperature,
      top_k=sampler.top_k,
      top_p=sampler.top_p,
      min_p=sampler.min_p,
      max_tokens=sampler.max_completion_tokens,
    )
  return engine_lib.SamplingParams(
    temperature=config.engines.frozen_temperature,
    max_tokens=config.engines.frozen_max_tokens,
  )
