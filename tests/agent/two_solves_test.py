"""Two solves with the same modules and tools share nothing.

The reference keeps its memory in the solver, so that a second question sees
the first one's results. Here modules hold no state between calls.
"""

import asyncio
import dataclasses

import pytest

from agentflow_jax.agent import episode
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib

_OF_THE_FIRST = ("Who wrote it?", "first goal", "first query", "because first")


def _solver(world, make_plan, make_command):
  """(solve, prompts): one set of modules and tools for all questions."""
  of = lambda context: context.task_id
  world.planner = lambda text, context: make_plan(
    context=of(context), sub_goal=f"{of(context)} goal"
  )
  world.executor = lambda text, context: make_command(f"{of(context)} query")
  world.verifier = lambda text, context: (
    f"because {of(context)}\nConclusion: CONTINUE"
  )
  world.set(max_turns=2)
  modules, tools = world.modules, {t.spec.name: t for t in world.tools}

  def solve(name, question, member=0):
    return episode.run_episode(
      dataclasses.replace(world.task, id=name, question=question),
      modules,
      tools,
      world.settings,
      engine_lib.CallContext(
        role=messages_lib.ModuleRole.PLANNER, member=member
      ),
    )

  def prompts(name, role):
    return [
      text
      for asked, text, context in world.asked
      if asked == role and context.task_id == name
    ]

  return solve, prompts


@pytest.mark.parametrize("style", ["compact", "full"])
def test_a_second_question_sees_nothing_of_the_first(
  world, make_plan, make_command, style
):
  world.set(prompt_style=style)
  solve, prompts = _solver(world, make_plan, make_command)
  asyncio.run(solve("first", "Who wrote it?"))
  # They are in the first one's own second prompt, so this test can fail.
  second_prompt = prompts("first", "planner")[1]
  shown = [text for text in _OF_THE_FIRST if text in second_prompt]
  assert len(shown) >= 3
  asyncio.run(solve("second", "Where is it?"))
  of_the_second = prompts("second", "planner")
  assert len(of_the_second) == 2
  for role in ("planner", "executor", "verifier", "generator"):
    assert prompts("second", role)
    for prompt in prompts("second", role):
      for text in _OF_THE_FIRST:
        assert text not in prompt
  assert "second query" in of_the_second[1]


def test_a_question_asked_again_gives_the_same_prompts(
  world, make_plan, make_command
):
  solve, prompts = _solver(world, make_plan, make_command)
  asyncio.run(solve("first", "Who wrote it?"))
  alone = {r: prompts("first", r) for r in ("planner", "verifier")}
  asyncio.run(solve("second", "Where is it?"))
  world.asked.clear()
  asyncio.run(solve("first", "Who wrote it?"))
  for role, expected in alone.items():
    assert prompts("first", role) == expected


def test_questions_asked_at_once_see_nothing_of_each_other(
  world, make_plan, make_command
):
  solve, prompts = _solver(world, make_plan, make_command)

  async def both():
    await asyncio.gather(
      solve("first", "Who wrote it?"), solve("second", "Where is it?")
    )

  asyncio.run(both())
  for prompt in prompts("second", "planner"):
    for text in _OF_THE_FIRST:
      assert text not in prompt
  assert "first query" in prompts("first", "planner")[1]
