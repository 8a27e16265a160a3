"""Engines, tools and modules: everything an episode is run with.

Flow: engine names of the config -> engines, with guards -> toolbox and the
four modules -> Agents, which runs episodes.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from agentflow_jax.agent import (
  episode,
  executor,
  generator,
  planner,
  policy,
  verifier,
)
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.assembly import engine_stack
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import flows, providers
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.rollout import replay as replay_lib
from agentflow_jax.tasks.searching import rules as search_rules
from agentflow_jax.tasks.worldfacts import rules, tag_rules
from agentflow_jax.tools import metered
from agentflow_jax.tools import registry as tools_registry

TRAINABLE, FROZEN = providers.TRAINABLE, providers.FROZEN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agents:
  """Runs episodes with one set of engines and tools."""

  config: config_lib.Config
  modules: settings_lib.AgentModules | settings_lib.MonolithicModules
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
  """Each role's engine, with its guards; close it when done.

  Roles that name the same engine with the same options share one.
  """

  config: config_lib.Config
  stacks: Mapping[str, engine_stack.Stack]  # by role
  replay: replay_lib.Replay | None

  @classmethod
  def of(
    cls, config: config_lib.Config, models: Mapping[str, engine_lib.Engine]
  ) -> "Engines":
    """Engines of the roles.

    Args:
      config: validated.
      models: "trainable" and "frozen", where the run has them; a role whose
        model is missing has no engine.

    Raises:
      UserError: an API's key or address, or what to replay, is missing.
    """
    replay = replay_lib.open_replay(
      config.rollout.replay, config.rollout.replay_dir
    )
    own = {
      providers.SCRIPTED_WORLDFACTS: scripted.ScriptedEngine(
        {**rules.rules(), **tag_rules.rules()}, providers.SCRIPTED_WORLDFACTS
      ),
      providers.SCRIPTED_SEARCH: scripted.ScriptedEngine(
        search_rules.rules(), providers.SCRIPTED_SEARCH
      ),
      **models,
    }
    built: dict[object, engine_stack.Stack] = {}
    stacks = {}
    for role, name in flows.engine_names(config).items():
      key = (name, *_identity(config.engines.options(role)))
      if key not in built:
        stack = _stack(config, role, own, replay)
        if stack is None:
          continue
        built[key] = stack
      stacks[role] = built[key]
    return cls(config=config, stacks=stacks, replay=replay)

  def for_role(
    self, role: str
  ) -> tuple[engine_lib.Engine, engine_lib.SamplingParams]:
    """Who answers for "planner", "executor", ... and how it is sampled."""
    return self.stacks[role].engine, sampling_of(self.config, role)

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """What the engines counted, as "engine/NAME/COUNTER"."""
    found: dict[str, float] = {}
    seen: list[engine_stack.Stack] = []
    for role, stack in self.stacks.items():
      if any(stack is other for other in seen):
        continue
      seen.append(stack)
      name = getattr(self.config.engines, role)
      for counter, value in stack.metrics(reset).items():
        key = f"engine/{name}/{counter}"
        found[key] = found.get(key, 0.0) + value
    if self.replay is not None:
      counts = self.replay.metrics(reset)
      found |= {f"replay/{name}": value for name, value in counts.items()}
    return found

  async def aclose(self) -> None:
    """Closes connections and files. Idempotent."""
    for stack in self.stacks.values():
      await stack.closing.aclose()
    if self.replay is not None:
      self.replay.close()


def _identity(options: config_lib.EngineOptions) -> tuple[object, ...]:
  """The options an engine is built from; the others are per call."""
  return (
    options.base_url,
    options.structured,
    options.input_price,
    options.output_price,
  )


def _stack(
  config: config_lib.Config,
  role: str,
  own: Mapping[str, engine_lib.Engine],
  replay: replay_lib.Replay | None,
) -> engine_stack.Stack | None:
  """The engine of a role; None for a model the run does not have."""
  name = getattr(config.engines, role)
  model = providers.remote_model(name)
  if replay is not None and replay.replaying:
    stack = engine_stack.Stack(
      engine=replay.engine(name, None),
      counting=[],
      closing=contextlib.AsyncExitStack(),
    )
    return stack if model or name in own else None
  if model is not None:
    stack = engine_stack.of_api(
      config.engines, model, config.engines.options(role)
    )
  elif name in own:
    stack = engine_stack.local(config.engines, own[name])
  else:
    return None
  if replay is None:
    return stack
  return dataclasses.replace(stack, engine=replay.engine(name, stack.engine))


def build_toolbox(
  engines: Engines, index_dir: pathlib.Path
) -> tools_registry.Toolbox:
  """The enabled tools; close it when done.

  When replaying, none is built: neither keys nor servers nor indexes are
  needed, and `check` has nothing to check.
  """
  config, replay = engines.config.tools, engines.replay
  # The same names mean the same tools, wherever what they use has moved to.
  chosen = (*config.enabled, *config.mcp_servers)
  if replay is not None and replay.replaying:
    return _replayed(replay, chosen)
  engine, sampling = engines.for_role("tool")
  toolbox = tools_registry.build(
    config,
    tools_registry.Resources(
      engine=engine,
      sampling=sampling,
      search_index_dir=os.fspath(index_dir),
    ),
  )
  if replay is None:
    return toolbox
  replay.keep_specs(chosen, (tool.spec for tool in toolbox.values()))
  return tools_registry.Toolbox(
    {name: replay.tool(tool) for name, tool in toolbox.items()},
    config.call_timeout_s,
  )


def _replayed(
  replay: replay_lib.Replay, chosen: Sequence[str]
) -> tools_registry.Toolbox:
  """Recorded specs whose calls are answered from the store."""
  return tools_registry.Toolbox(
    {
      tool.spec.name: replay.tool(metered.MeteredTool(tool))
      for tool in replay.absent_tools(chosen)
    }
  )


def build_agents(
  engines: Engines,
  toolbox: tools_registry.Toolbox,
  count_tokens: Callable[[str], int],
) -> Agents:
  """The flow's modules over their engines.

  `count_tokens` bounds the memory and the results of tools.
  """
  if engines.config.agent.flow == flows.MONOLITHIC:
    modules = settings_lib.MonolithicModules(
      policy=policy.Policy(*engines.for_role("policy")),
      count_tokens=count_tokens,
    )
  else:
    modules = settings_lib.AgentModules(
      planner=planner.Planner(*engines.for_role("planner")),
      executor=executor.Executor(*engines.for_role("executor")),
      verifier=verifier.Verifier(*engines.for_role("verifier")),
      generator=generator.Generator(*engines.for_role("generator")),
      count_tokens=count_tokens,
    )
  return Agents(config=engines.config, modules=modules, toolbox=toolbox)


def sampling_of(
  config: config_lib.Config, role: str
) -> engine_lib.SamplingParams:
  """How a role is sampled: the policy by `sampler`, others by their options."""
  if getattr(config.engines, role) == TRAINABLE:
    sampler = config.sampler
    return engine_lib.SamplingParams(
      temperature=sampler.temperature,
      top_k=sampler.top_k,
      top_p=sampler.top_p,
      min_p=sampler.min_p,
      max_tokens=sampler.max_completion_tokens,
    )
  engines, options = config.engines, config.engines.options(role)
  return engine_lib.SamplingParams(
    temperature=(
      engines.frozen_temperature
      if options.temperature < 0
      else options.temperature
    ),
    top_p=options.top_p,
    max_tokens=options.max_tokens or engines.frozen_max_tokens,
  )
