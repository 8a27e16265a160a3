"""A planner by rule that searches for names at random, to be imitated.

It writes the planner's format and searches for one or two of the names that
its prompt mentions: names of the question, titles of results and names in
their texts. A model that imitates it knows how to write a query and not yet
which; that is what Flow-GRPO has to teach.
"""

import functools
import random
from collections.abc import Sequence

from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.searching import names as names_lib
from agentflow_jax.tasks.searching import rules

# Where a name is taken from: the question, a title, a text; when there is no
# result yet, the question.
_SOURCES = ("question", "title", "text")
_WEIGHTS = (0.45, 0.15, 0.4)
_TWO_NAMES = 0.4  # how often a query has two of them
BETWEEN = ", "


def random_plan(
  prompt_text: str, rng: random.Random, tool_names: Sequence[str]
) -> str:
  """A labelled plan of a random search.

  Args:
    prompt_text: a planner prompt.
    rng: where the choices come from; a fixed number of draws is not promised.
    tool_names: the tools to choose from, at least one.
  """
  found = _mentioned(prompt_text)
  count = 2 if rng.random() < _TWO_NAMES else 1
  query: list[str] = []
  for _ in range(count):
    name = _choose(found, rng)
    if name and name not in query:
      query.append(name)
  return rules.labelled(
    BETWEEN.join(query) or _question(prompt_text), rng.choice(tool_names)
  )


def _question(prompt_text: str) -> str:
  return prompt_reader.read_prompt(prompt_text).question


@functools.lru_cache(maxsize=64)
def _mentioned(prompt_text: str) -> dict[str, list[str]]:
  """The names of each source, each once; a prompt is planned for many times."""
  prompt = prompt_reader.read_prompt(prompt_text)
  passages = [
    passage
    for turn in prompt.turns
    for passage in prompt_reader.passages(turn.result)
  ]
  texts = [name for _, text in passages for name in names_lib.names(text)]
  return {
    "question": list(dict.fromkeys(names_lib.names(prompt.question))),
    "title": list(dict.fromkeys(title for title, _ in passages)),
    "text": list(dict.fromkeys(texts)),
  }


def _choose(found: dict[str, list[str]], rng: random.Random) -> str:
  """A name of a random source that has one; "" if none has."""
  sources = [source for source in _SOURCES if found[source]]
  if not sources:
    return ""
  weights = [_WEIGHTS[_SOURCES.index(source)] for source in sources]
  (source,) = rng.choices(sources, weights)
  return rng.choice(found[source])
