"""A monolithic policy by rule: it plays the four modules in one text.

Reads the growing text of a monolithic agent, as a language model would: the
question, its own calls in tags, and the results between them. From these it
writes the memory that the rules of this world read, and lets them decide: a
strategy plans, the executor's rule writes the query, the verifier's rule stops,
the generator's rule answers.

`act` plans as the oracle does: it shows that every question can be solved
through tags. `random_piece` plans as random planners do, for a policy to
imitate: it then knows what the modules know, and not yet what to look up.
"""

import dataclasses
import json
import random
import re
from collections.abc import Mapping, Sequence

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.worldfacts import names, random_strategy
from agentflow_jax.tasks.worldfacts import rules as world_rules

# A call of ours and what came of it. Results are defused, so the first closing
# tag is the agent's.
_PIECE = re.compile(
  r"<(?P<tag>[a-z][a-z0-9_]*)>(?P<body>[^<]*)</(?P=tag)>\s*"
  r"<information>(?P<result>.*?)</information>",
  re.DOTALL,
)
_QUESTION = re.compile(
  rf"^{messages_lib.QUESTION}(?P<question>.*)$", re.MULTILINE
)
_TAG = re.compile(r"<([a-z][a-z0-9_]*)>")
_QUERY = re.compile(r'execute\(query=(".*")\)')
# How the agent says so; core knows nothing of it, and agents are neighbours.
_NO_CALLS_LEFT = "No calls are left"
_STOP = "Conclusion: STOP"
_ANSWER = "<answer>"


def rules() -> Mapping[messages_lib.ModuleRole, world_rules.Rule]:
  """The rule of the policy, for a ScriptedEngine."""
  return {messages_lib.ModuleRole.POLICY: act}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
  """What the text says, as the rules of the four modules read it."""

  tags: Sequence[str]
  memory: str
  missing: str  # what the verifier's rule says of it
  answers: bool  # it is time for the answer


def act(text: str, context: engine_lib.CallContext) -> str:
  """The next piece: a call in its tag, or the answer.

  Args:
    text: the question's message and everything behind it.
    context: not looked at.
  """
  scene = _read(text, context, None)
  if scene is None:
    return world_rules.NO_SOURCE
  if scene.answers:
    return world_rules.generate(scene.memory, context)
  search = next(filter(prompt_reader.is_search, scene.tags), "search")
  python = next(filter(prompt_reader.is_python, scene.tags), "python_coder")
  plan = random_strategy.oracle_plan(scene.memory, search, python)
  return f"{scene.missing} {_call(scene, plan, context)}"


def random_piece(
  text: str,
  rng: random.Random,
  settings: random_strategy.StrategySettings,
  finder: names.NameFinder,
) -> str:
  """A call that a random strategy plans, or the answer when there is one.

  Behind an opening tag stands a blank, as before a name in a sentence: who
  copies the name copies its very tokens.

  Args:
    text: the question's message and everything behind it.
    rng: where the choices come from.
    settings: how random.
    finder: finds the names that a call may be about.
  """
  context = engine_lib.CallContext(role=messages_lib.ModuleRole.POLICY)
  scene = _read(text, context, finder)
  if scene is None:
    return world_rules.NO_SOURCE
  if scene.answers:
    written = world_rules.generate(scene.memory, context)
    return f"{_ANSWER} {written.rpartition(_ANSWER)[2]}"
  plan = random_strategy.random_plan(
    scene.memory, rng, scene.tags, settings, finder
  )
  opening, bracket, rest = _call(scene, plan, context).partition(">")
  return f"{opening}{bracket} {rest}"


def _read(
  text: str,
  context: engine_lib.CallContext,
  finder: names.NameFinder | None,
) -> _Scene | None:
  """None without a question."""
  asked = _QUESTION.search(text)
  if asked is None:
    return None
  begun = text[asked.end() :]
  memory = _memory(asked["question"].strip(), begun, finder)
  judged = world_rules.verify(memory, context)
  return _Scene(
    tags=_TAG.findall(text[: asked.start()]),
    memory=memory,
    missing=judged.partition("\n")[0],
    answers=judged.endswith(_STOP) or _NO_CALLS_LEFT in begun,
  )


def _call(scene: _Scene, plan: str, context: engine_lib.CallContext) -> str:
  """The step of a plan in its tag, as the executor's rule writes it."""
  command = world_rules.execute(f"{scene.memory}\n{plan}", context)
  query = _QUERY.search(command)
  step = prompt_reader.read_prompt(plan)
  body = json.loads(query[1]) if query else step.sub_goal
  return f"<{step.tool_name}>{body}</{step.tool_name}>"


def _memory(question: str, begun: str, finder: names.NameFinder | None) -> str:
  """A prompt as the rules of the four modules read it.

  With a finder, calls are about the first name in them.
  """
  lines = [f"{messages_lib.QUESTION} {question}", messages_lib.MEMORY]
  for number, piece in enumerate(_PIECE.finditer(begun), start=1):
    named = finder.find(piece["body"]) if finder else []
    about = named[0] if named else world_rules.NO_CONTEXT
    lines.append(f"Turn {number}: {piece['tag']} | {about} | none")
    lines.append(f"{messages_lib.RESULT} {piece['result']}")
  return "\n".join(lines)
