"""A small agent whose modules are functions, for the tests of this folder."""

import asyncio
import dataclasses
from collections.abc import Callable

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
from agentflow_jax.engines import scripted
from agentflow_jax.testing import byte_tokenizer, fake_tools, scripted_engine

_ROLE = messages_lib.ModuleRole
# Ends a test that would hang; never reached otherwise.
_SAFETY_S = 60


def plan(
  context: str = "none", sub_goal: str = "echo it", tool: str = "Echo_Tool"
) -> str:
  return f"Context: {context}\nSub-Goal: {sub_goal}\nTool Name: {tool}"


def command(*queries: str) -> str:
  lines = [f'execution = tool.execute(query="{q}")' for q in queries]
  return "```python\n" + "\n".join(lines) + "\n```"


class World:
  """Scripts for the four modules, and what each of them was asked.

  A script gets the prompt and the call's context. The planner is a
  FakePolicyEngine over bytes, so its completions carry ids.
  """

  def __init__(self):
    self.task = task_lib.Task(
      id="t0", question="Who?", answers=("G0LD",), data_source="test"
    )
    self.tools = [fake_tools.EchoTool()]
    self.planner: Callable[..., str] = lambda text, context: plan()
    self.executor: Callable[..., str] = lambda text, context: command("hi")
    self.verifier: Callable[..., str] = lambda t, c: "Conclusion: CONTINUE"
    self.generator: Callable[..., str] = lambda t, c: "<answer>42</answer>"
    self.asked: list[tuple[str, str, engine_lib.CallContext]] = []
    self.policy = scripted_engine.FakePolicyEngine(
      byte_tokenizer.ByteTokenizer(), self._rule(_ROLE.PLANNER)
    )
    self.frozen = scripted.ScriptedEngine(
      {
        role: self._rule(role)
        for role in (_ROLE.EXECUTOR, _ROLE.VERIFIER, _ROLE.GENERATOR)
      }
    )
    config = config_lib.Config()
    config.agent.prompt_style = "compact"
    self.settings = settings_lib.EpisodeSettings.from_config(
      config, evaluation=False
    )
    self.limit_tools(retries=0)

  def _rule(self, role):
    def rule(text, context):
      self.asked.append((str(role), text, context))
      return getattr(self, str(role))(text, context)

    return rule

  def limit_tools(self, **limits):
    self.set(
      tool_limits=dataclasses.replace(
        self.settings.tool_limits, first_delay_s=0.0, **limits
      )
    )

  def set(self, **fields):
    self.settings = dataclasses.replace(self.settings, **fields)

  def prompts(self, role: str) -> list[str]:
    return [text for asked, text, _ in self.asked if asked == role]

  def contexts(self, role: str) -> list[engine_lib.CallContext]:
    return [context for asked, _, context in self.asked if asked == role]

  @property
  def modules(self) -> settings_lib.AgentModules:
    sampling = engine_lib.SamplingParams(max_tokens=10_000)
    return settings_lib.AgentModules(
      planner=planner_lib.Planner(self.policy, sampling),
      executor=executor_lib.Executor(self.frozen, sampling),
      verifier=verifier_lib.Verifier(self.frozen, sampling),
      generator=generator_lib.Generator(self.frozen, sampling),
      count_tokens=lambda text: len(text.encode("utf-8")),
    )

  def start(self, on_turn=None, **context):
    return episode.run_episode(
      self.task,
      self.modules,
      {str(i): tool for i, tool in enumerate(self.tools)},
      self.settings,
      engine_lib.CallContext(role=_ROLE.PLANNER, seed=7, **context),
      on_turn,
    )

  def run(self, on_turn=None, **context):
    async def bounded():
      return await asyncio.wait_for(self.start(on_turn, **context), _SAFETY_S)

    return asyncio.run(bounded())


@pytest.fixture
def world() -> World:
  return World()


@pytest.fixture
def make_plan():
  return plan


@pytest.fixture
def make_command():
  return command
