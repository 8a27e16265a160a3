"""A monolithic agent whose policy is a function, for tests of this folder."""

import asyncio
import dataclasses
from collections.abc import Callable

from agentflow_jax.agent import episode
from agentflow_jax.agent import policy as policy_lib
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.testing import byte_tokenizer, fake_tools, scripted_engine

# Ends a test that would hang; never reached otherwise.
_SAFETY_S = 60
SEARCH, PYTHON = "Wikipedia_Search_Tool", "Python_Coder_Tool"


class World:
  """`says` gets the text so far and the context, and gives the next piece.

  The engine is a FakePolicyEngine over bytes: pieces carry ids, stop strings
  end them.
  """

  def __init__(self):
    self.task = task_lib.Task(
      id="t0", question="Who?", answers=("G0LD",), data_source="test"
    )
    self.search = fake_tools.EchoTool(SEARCH, ("wikipedia_search",))
    self.tools = [self.search, fake_tools.EchoTool(PYTHON, ("python_coder",))]
    self.says: Callable[[str, engine_lib.CallContext], str] = lambda t, c: (
      "I look. <search>hi</search>"
    )
    self.tokenizer = byte_tokenizer.ByteTokenizer()
    self.engine = scripted_engine.FakePolicyEngine(
      self.tokenizer, lambda text, context: self.says(text, context)
    )
    config = config_lib.Config()
    config.agent.prompt_style = "compact"
    self.settings = settings_lib.EpisodeSettings.from_config(config, False)
    self.set(
      tool_limits=dataclasses.replace(
        self.settings.tool_limits, first_delay_s=0.0, retries=0
      )
    )
    self.max_tokens = 10_000

  def set(self, **fields):
    self.settings = dataclasses.replace(self.settings, **fields)

  def script(self, *pieces: str):
    """Piece by piece; the last one again and again."""
    self.says = lambda text, context: pieces[min(context.turn, len(pieces) - 1)]

  @property
  def modules(self) -> settings_lib.MonolithicModules:
    sampling = engine_lib.SamplingParams(max_tokens=self.max_tokens)
    return settings_lib.MonolithicModules(
      policy=policy_lib.Policy(self.engine, sampling),
      count_tokens=lambda text: len(text.encode("utf-8")),
    )

  def start(self, on_turn=None, task=None, modules=None, **context):
    return episode.run_episode(
      task or self.task,
      modules or self.modules,
      {str(i): tool for i, tool in enumerate(self.tools)},
      self.settings,
      engine_lib.CallContext(
        role=messages_lib.ModuleRole.PLANNER, seed=7, **context
      ),
      on_turn,
    )

  def run(self, on_turn=None, **context):
    async def bounded():
      return await asyncio.wait_for(self.start(on_turn, **context), _SAFETY_S)

    return asyncio.run(bounded())


def calls_of(trajectory):
  """Every call of the policy, in order."""
  calls = [call for turn in trajectory.turns for call in turn.module_calls]
  return [*calls, *trajectory.final_calls]
