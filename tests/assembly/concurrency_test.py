"""512 episodes in one process, and what is left when they are cancelled."""

import asyncio

import api_process
import assembled_world
import faulty
import pytest

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import providers
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.tasks.worldfacts import rules
from agentflow_jax.testing import byte_tokenizer, scripted_engine

_ROLE = messages_lib.ModuleRole


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def test_512_episodes_at_the_same_time(data_dir):
  """Nobody goes on before all 512 have asked for their first plan."""
  config = assembled_world.config(
    rollout__tasks=64,
    rollout__group_size=8,
    rollout__max_concurrent_episodes=512,
  )
  oracle, asked = assembled_world.oracle(), set()
  everybody = asyncio.Event()

  class Gate:
    async def generate(self, messages, sampling, context):
      asked.add((context.task_id, context.member))
      if len(asked) == 512:
        everybody.set()
      await everybody.wait()
      return await oracle.generate(messages, sampling, context)

  async def main():
    models = {"trainable": Gate()}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, _, _, agents = parts
      return await assembled_world.rollout(config, world, agents)

  groups = asyncio.run(main())
  rewards = [t.reward for group in groups for t in group.trajectories]
  assert rewards == [1.0] * 512


def test_cancelling_kills_tools_processes_and_connections(
  data_dir, monkeypatch
):
  """Episodes spin in the sandbox or hang at an API until the step's end."""
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)

  def plan(text, context):
    del text
    # Member 0 computes for ever; member 1 asks the hanging verifier.
    tool = "Wikipedia_Search" if context.member else "Python_Coder"
    return f"Context: none\nSub-Goal: add 1 and 2\nTool Name: {tool}_Tool"

  def spin(text, context):
    del text, context
    return "```python\nwhile True:\n  pass\n```"

  models = {
    "trainable": scripted_engine.FakePolicyEngine(
      byte_tokenizer.ByteTokenizer(), plan
    ),
    providers.SCRIPTED_WORLDFACTS: scripted.ScriptedEngine(
      {**rules.rules(), _ROLE.TOOL: spin}
    ),
  }

  async def main(api):
    config = assembled_world.config(
      engines__verifier="compatible:hang",
      engines__verifier_options__base_url=api.base_url,
      tools__python_timeout_s=100.0,
      rollout__tasks=8,
      rollout__timeout_s=4.0,
    )
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, _, _, agents = parts
      rollout = asyncio.create_task(
        assembled_world.rollout(config, world, agents)
      )
      while not api.stats()["open"]:
        await asyncio.sleep(0.05)
      groups = await rollout
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return groups

  with api_process.serve() as api:
    before = faulty.left_over()
    groups = asyncio.run(main(api))
    faulty.assert_nothing_left(before)
    assert api.stats()["open"] == 0
  reasons = {t.stop_reason for group in groups for t in group.trajectories}
  assert reasons == {trajectory_lib.StopReason.TIMEOUT}
