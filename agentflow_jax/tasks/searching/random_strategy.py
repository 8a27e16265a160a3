"""A planner by rule that searches at random, to be imitated.

It writes the planner's format and searches for the question, for one or two of
the names that its prompt mentions (those of the question, and titles of
results), or for what the pages of such names link to. A model that imitates it
knows how to write a plan and not yet which; that is what Flow-GRPO has to
teach.
"""

import functools
import random
from collections.abc import Sequence

from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.searching import names as names_lib
from agentflow_jax.tasks.searching import rules

# Of rules.SUB_GOALS; the question is searched once.
_GOAL_WEIGHTS = (0.3, 0.3, 0.4)
_GOAL_WEIGHTS_LATER = (0.35, 0.05, 0.6)
_QUESTION = 0.7  # how often a name is one of the question, and no title
_TWO_NAMES = 0.3


def random_plan(
  prompt_text: str, rng: random.Random, tool_names: Sequence[str]
) -> str:
  """A labelled plan of a random search.

  Args:
    prompt_text: a planner prompt.
    rng: where the choices come from; a fixed number of draws is not promised.
    tool_names: the tools to choose from, at least one.
  """
  asked, titles = _mentioned(prompt_text)
  tool_name = rng.choice(tool_names)
  later = f" | {rules.QUESTION_SUB_GOAL}\n" in prompt_text
  weights = _GOAL_WEIGHTS_LATER if later else _GOAL_WEIGHTS
  (goal,) = rng.choices(rules.SUB_GOALS, weights)
  names: list[str] = []
  for _ in range(2 if rng.random() < _TWO_NAMES else 1):
    source = asked if rng.random() < _QUESTION else titles
    if source or asked:
      names.append(rng.choice(source or asked))
  if goal == rules.QUESTION_SUB_GOAL or not names:
    return rules.labelled(rules.NO_CONTEXT, tool_name, rules.QUESTION_SUB_GOAL)
  context = rules.BETWEEN.join(dict.fromkeys(names))
  return rules.labelled(context, tool_name, goal)


@functools.lru_cache(maxsize=64)
def _mentioned(prompt_text: str) -> tuple[list[str], list[str]]:
  """Names of the question and titles of results, each once.

  Kept, because a prompt is planned for many times.
  """
  prompt = prompt_reader.read_prompt(prompt_text)
  titles = (
    title
    for turn in prompt.turns
    for title, _ in prompt_reader.passages(turn.result)
  )
  return (
    list(dict.fromkeys(names_lib.names(prompt.question))),
    list(dict.fromkeys(titles)),
  )
