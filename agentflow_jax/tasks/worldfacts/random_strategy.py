"""Planners by rule: a random one to imitate, and one that is always right.

`random_plan` speaks the planner's format and chooses at random among what its
prompt mentions: a tool, and a sub-goal that mostly fits the tool; its name is
mostly the next one nobody has searched, whatever the tool is for. A model
that imitates it knows how to write a plan and not yet which one; that is what
Flow-GRPO has to teach. `oracle_plan` takes the shortest way; it shows that
every question can be solved, and gives tests a perfect planner.

Both read one prompt, like the model they stand for, and know no facts.
"""

import dataclasses
import random
from collections.abc import Sequence

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.worldfacts import (
  grammar,
  names,
  operations,
  reader,
  relations,
  rules,
)

SEARCH_TOOL = "Wikipedia_Search_Tool"
PYTHON_TOOL = "Python_Coder_Tool"
ANSWER_SUB_GOAL = "answer the question"

_SEARCH = "search"
_PYTHON = "python"
_GENERALIST = "generalist"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StrategySettings:
  """How random a strategy is.

  Weights are relative and count per tool of that kind; a kind without a tool
  is never chosen.
  """

  search_weight: float = 1.0
  python_weight: float = 1.0
  generalist_weight: float = 1.0
  # Probability that the sub-goal is of the tool's kind.
  kind_match: float = 0.9
  # Probability that a search asks for an attribute the question is about, and
  # that a computation is the one it is about (where there is one).
  question_attribute: float = 0.5
  question_operation: float = 0.5
  # Probability that the name is the first one that was not searched yet.
  next_name: float = 0.95


def random_plan(
  prompt_text: str,
  rng: random.Random,
  tool_names: Sequence[str],
  settings: StrategySettings,
  finder: names.NameFinder | None = None,
) -> str:
  """A labelled plan of a random strategy for the prompt's turn.

  Args:
    prompt_text: a planner prompt.
    rng: where the choices come from; a fixed number of draws is not promised.
    tool_names: the tools to choose from, at least one.
    settings: how random.
    finder: finds the names a context may take; default, all page titles.

  Returns:
    "Context: ..\\nSub-Goal: ..\\nTool Name: ..".
  """
  prompt = prompt_reader.read_prompt(prompt_text)
  weights = {
    _SEARCH: settings.search_weight,
    _PYTHON: settings.python_weight,
    _GENERALIST: settings.generalist_weight,
  }
  (tool_name,) = rng.choices(
    tool_names, [weights[_kind(name)] for name in tool_names]
  )
  kind = _kind(tool_name)
  goal_kind = kind
  if rng.random() >= settings.kind_match:
    goal_kind = rng.choice([other for other in weights if other != kind])
  if goal_kind == _SEARCH:
    sub_goal = _search_goal(prompt, rng, settings)
  elif goal_kind == _PYTHON:
    sub_goal = _python_goal(prompt, rng, settings)
  else:
    sub_goal = ANSWER_SUB_GOAL
  # A name for every tool: if only searches had one, "none" would be the single
  # most likely context, and sampling below temperature 1 would hardly search.
  finder = finder or names.known_names()
  seen = finder.find(mentioned_text(prompt))
  searched = {
    turn.context
    for turn in prompt.turns
    if prompt_reader.is_search(turn.tool_name)
  }
  fresh = [name for name in seen if name not in searched]
  if fresh and rng.random() < settings.next_name:
    context = fresh[0]
  else:
    context = rng.choice(seen) if seen else rules.NO_CONTEXT
  return _plan(context, sub_goal, tool_name)


def oracle_plan(
  prompt_text: str,
  search_tool: str = SEARCH_TOOL,
  python_tool: str = PYTHON_TOOL,
) -> str:
  """The plan that brings the question one step closer to its answer.

  Searches the first fact that is missing, then computes. A question this
  world does not ask, or one that is already answered, gets a search for
  itself, because a plan there must be.
  """
  prompt = prompt_reader.read_prompt(prompt_text)
  query = grammar.parse(prompt.question)
  if query is None:
    return _plan(prompt.question, ANSWER_SUB_GOAL, search_tool)
  known = reader.know(prompt.turns)
  for path in query.paths:
    gap = reader.resolve(path, known)
    if isinstance(gap, reader.Missing):
      return _plan(gap.name, f"find {gap.wanted}", search_tool)
  if query.operation is None:
    return _plan(query.paths[0].name, ANSWER_SUB_GOAL, search_tool)
  return _plan(
    rules.NO_CONTEXT, operations.SUB_GOALS[query.operation], python_tool
  )


def mentioned_text(prompt: prompt_reader.Prompt) -> str:
  """What names are looked for in: the question and the results."""
  return "\n".join([prompt.question, *(turn.result for turn in prompt.turns)])


def _search_goal(
  prompt: prompt_reader.Prompt, rng: random.Random, settings: StrategySettings
) -> str:
  """An attribute, from the question or any."""
  wanted = list(dict.fromkeys(relations.PHRASES.values()))
  query = grammar.parse(prompt.question)
  if query and query.attributes and rng.random() < settings.question_attribute:
    wanted = [relations.PHRASES[name] for name in query.attributes]
  return f"find the {rng.choice(wanted)}"


def _python_goal(
  prompt: prompt_reader.Prompt, rng: random.Random, settings: StrategySettings
) -> str:
  """An operation, the question's or any."""
  query = grammar.parse(prompt.question)
  if query and query.operation and rng.random() < settings.question_operation:
    return operations.SUB_GOALS[query.operation]
  return rng.choice(list(operations.SUB_GOALS.values()))


def _kind(tool_name: str) -> str:
  if prompt_reader.is_search(tool_name):
    return _SEARCH
  return _PYTHON if prompt_reader.is_python(tool_name) else _GENERALIST


def _plan(context: str, sub_goal: str, tool_name: str) -> str:
  return "\n".join(
    (
      f"{messages_lib.CONTEXT} {context}",
      f"{messages_lib.SUB_GOAL} {sub_goal}",
      f"{messages_lib.TOOL_NAME} {tool_name}",
    )
  )
