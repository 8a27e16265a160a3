"""Whole episodes: real agent, real tools, real rewards, a given planner."""

import collections
import random

import pytest

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks.worldfacts import questions, random_strategy, split

_TOOLS = [
  "Wikipedia_Search_Tool",
  "Python_Coder_Tool",
  "Base_Generator_Tool",
]
_TURNS = {
  questions.ONE_HOP: 1,
  questions.TWO_HOP: 2,
  questions.COMPUTE: 3,
  questions.ARITHMETIC: 1,
  questions.ONE_FACT: 2,
}


def _rewards(trajectories):
  by_family = collections.defaultdict(list)
  for trajectory in trajectories:
    assert trajectory.reward is not None, trajectory
    by_family[trajectory.task.family].append(trajectory.reward)
  return {
    family: sum(rewards) / len(rewards) for family, rewards in by_family.items()
  }


def _solve_all(agent, tasks, **config):
  """The oracle's episodes, all of which must succeed in the fewest turns."""
  trajectories = agent.solve(tasks, random_strategy.oracle_plan, **config)
  for trajectory in trajectories:
    assert trajectory.reward == 1.0, (trajectory.task, trajectory.answer)
    assert trajectory.stop_reason == trajectory_lib.StopReason.VERIFIED
    fewest = _TURNS[trajectory.task.family]
    if config.get("search_top_k", 1) == 1:
      assert len(trajectory.turns) == fewest, trajectory.task
    assert len(trajectory.turns) <= fewest
  return trajectories


def test_the_oracle_solves_every_held_out_question(agent):
  assert len(_solve_all(agent, questions.tasks(split.HELD_OUT))) == 300


@pytest.mark.slow
def test_the_oracle_solves_every_train_question(agent):
  assert len(_solve_all(agent, questions.tasks(split.TRAIN))) == sum(
    questions.COUNTS["train"].values()
  )


def test_full_prompts_more_passages_and_all_outputs_work_as_well(agent):
  tasks = questions.tasks(split.TRAIN)[:60]
  trajectories = _solve_all(
    agent,
    tasks,
    prompt_style="full",
    search_top_k=3,
    query_analysis=True,
    outputs=("base", "final", "direct"),
  )
  for trajectory in trajectories:
    assert [name for name, _ in trajectory.outputs] == [
      "base",
      "final",
      "direct",
    ]


def test_a_two_hop_question_takes_two_searches(agent):
  """Searching the question itself, again and again, never answers it."""
  tasks = [
    task
    for task in questions.tasks(split.HELD_OUT)
    if task.family == questions.TWO_HOP
  ]
  by_task = {task.question: task for task in tasks}

  def whole_question(text):
    question = text.split("Question: ")[1].split("\n")[0]
    assert question in by_task
    return (
      f"Context: {question}\nSub-Goal: answer the question\n"
      "Tool Name: Wikipedia_Search_Tool"
    )

  trajectories = agent.solve(tasks, whole_question, max_turns=3)
  assert _rewards(trajectories) == {questions.TWO_HOP: 0.0}
  reasons = {trajectory.stop_reason for trajectory in trajectories}
  assert reasons == {trajectory_lib.StopReason.MAX_TURNS}


def test_a_wrong_operation_is_a_wrong_answer(agent):
  """The rules do not repair a plan: three operations, one of them right."""
  tasks = [
    task
    for task in questions.tasks(split.HELD_OUT)
    if task.family == questions.COMPUTE
  ][:30]

  def with_operation(sub_goal):
    def plan(text):
      lines = random_strategy.oracle_plan(text).split("\n")
      if lines[2].endswith("Python_Coder_Tool"):
        lines[1] = f"Sub-Goal: {sub_goal}"
      return "\n".join(lines)

    return plan

  right = 0.0
  for sub_goal in (
    "add the two numbers",
    "subtract the smaller number from the larger",
    "multiply the two numbers",
  ):
    trajectories = agent.solve(tasks, with_operation(sub_goal))
    assert {len(trajectory.turns) for trajectory in trajectories} == {3}
    right += _rewards(trajectories)[questions.COMPUTE]
  assert right == pytest.approx(1.0)


def test_a_random_strategy_leaves_much_to_learn(agent):
  """One search is easy to hit upon, a plan of three steps is not."""
  rng = random.Random(5)
  settings = random_strategy.StrategySettings()
  rewards = _rewards(
    agent.solve(
      questions.tasks(split.TRAIN)[:300],
      lambda text: random_strategy.random_plan(text, rng, _TOOLS, settings),
    )
  )
  assert 0.65 < rewards[questions.ONE_HOP] < 0.95, rewards
  assert 0.1 < rewards[questions.TWO_HOP] < 0.45, rewards
  assert 0.0 <= rewards[questions.COMPUTE] < 0.1, rewards
