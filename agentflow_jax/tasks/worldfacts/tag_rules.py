"""A monolithic policy by rule: it plays the four modules in one text.

Reads the growing text of a monolithic agent, as a language model would: the
question, its own calls in tags, and the results between them. From these it
writes the memory that the rules of this world read, and lets them decide: the
oracle plans, the executor's rule writes the query, the verifier's rule stops,
the generator's rule answers. It shows that every question can be solved
through tags, and plays whoever teaches a small model to write them.
"""

import json
import re
from collections.abc import Mapping

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.worldfacts import random_strategy
from agentflow_jax.tasks.worldfacts import rules as world_rules

# A call of ours and what came of it. Results are defused, so the first closing
# tag is the agent's.
_PIECE = re.compile(
  r"<(?P<tag>[a-z][a-z0-9_]*)>[^<]*</(?P=tag)>\s*"
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


def rules() -> Mapping[messages_lib.ModuleRole, world_rules.Rule]:
  """The rule of the policy, for a ScriptedEngine."""
  return {messages_lib.ModuleRole.POLICY: act}


def act(text: str, context: engine_lib.CallContext) -> str:
  """The next piece: a call in its tag, or the answer.

  Args:
    text: the question's message and everything behind it.
    context: not looked at.
  """
  asked = _QUESTION.search(text)
  if asked is None:
    return world_rules.NO_SOURCE
  begun = text[asked.end() :]
  memory = _memory(asked["question"].strip(), begun)
  judged = world_rules.verify(memory, context)
  if judged.endswith(_STOP) or _NO_CALLS_LEFT in begun:
    return world_rules.generate(memory, context)
  tags = _TAG.findall(text[: asked.start()])
  search = next(filter(prompt_reader.is_search, tags), "search")
  python = next(filter(prompt_reader.is_python, tags), "python_coder")
  plan = random_strategy.oracle_plan(memory, search, python)
  command = world_rules.execute(f"{memory}\n{plan}", context)
  query = _QUERY.search(command)
  step = prompt_reader.read_prompt(plan)
  body = json.loads(query[1]) if query else step.sub_goal
  missing = judged.partition("\n")[0]
  return f"{missing} <{step.tool_name}>{body}</{step.tool_name}>"


def _memory(question: str, begun: str) -> str:
  """A prompt as the rules of the four modules read it."""
  lines = [f"{messages_lib.QUESTION} {question}", messages_lib.MEMORY]
  for number, piece in enumerate(_PIECE.finditer(begun), start=1):
    lines.append(f"Turn {number}: {piece['tag']} | none | none")
    lines.append(f"{messages_lib.RESULT} {piece['result']}")
  return "\n".join(lines)
