"""The frozen modules of worldfacts as rules: prompt text in, answer text out.

  executor    the step's tool -> its query; for Python the numbers come from
              the memory and the operation from the sub-goal's verb
  verifier    STOP if and only if the question can be answered from the memory
  generator   the answer from the memory, or "unknown"
  tools       "Compute 50 + 79" -> a program; anything else -> "I do not know"

Each rule sees one prompt, like the language model it stands for. What to look
up, and when to compute what, is left to the planner: no rule looks ahead.
Model text is only searched and quoted; an expression becomes code only if it
is two numbers and an operator.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.worldfacts import grammar, reader, schema

Rule = Callable[[str, engine_lib.CallContext], str]

UNKNOWN = "unknown"
NO_CONTEXT = "none"  # a planner's context for tools that need no name
NO_NUMBERS = "Compute with numbers that are not known yet"
NO_SOURCE = "I do not know that without a source."

_QUERY = "Query:"
_EXPRESSION = re.compile("Compute ([0-9]{1,18} [-+*] [0-9]{1,18})")
_SYMBOLS = {
  schema.Operation.SUM: "+",
  schema.Operation.DIFFERENCE: "-",
  schema.Operation.PRODUCT: "*",
}
# What a sub-goal can call an operation; the first verb in it counts.
_VERBS = {
  "add": schema.Operation.SUM,
  "sum": schema.Operation.SUM,
  "plus": schema.Operation.SUM,
  "subtract": schema.Operation.DIFFERENCE,
  "difference": schema.Operation.DIFFERENCE,
  "minus": schema.Operation.DIFFERENCE,
  "multiply": schema.Operation.PRODUCT,
  "product": schema.Operation.PRODUCT,
  "times": schema.Operation.PRODUCT,
}


def rules() -> Mapping[messages_lib.ModuleRole, Rule]:
  """The rule of every frozen role, for a ScriptedEngine."""
  return {
    messages_lib.ModuleRole.EXECUTOR: execute,
    messages_lib.ModuleRole.VERIFIER: verify,
    messages_lib.ModuleRole.GENERATOR: generate,
    messages_lib.ModuleRole.TOOL: use_tool,
  }


def execute(text: str, context: engine_lib.CallContext) -> str:
  """The command of the step at the end of the prompt.

  Example: context "Laos", sub-goal "find the currency" and the search tool
  give the query "Laos currency".
  """
  del context
  prompt = prompt_reader.read_prompt(text)
  if prompt_reader.is_search(prompt.tool_name):
    query = _search_query(prompt)
  elif prompt_reader.is_python(prompt.tool_name):
    query = _computation(prompt)
  else:
    query = prompt.sub_goal
  # Python reads a JSON string as JSON does, but for escaped surrogate pairs.
  literal = json.dumps(query, ensure_ascii=False)
  return f"```python\nexecution = tool.execute(query={literal})\n```"


def verify(text: str, context: engine_lib.CallContext) -> str:
  """STOP or CONTINUE, behind one line that names what is missing."""
  del context
  outcome = _judge(prompt_reader.read_prompt(text))
  if outcome.missing:
    return f"Missing: {outcome.missing}.\nConclusion: CONTINUE"
  return "The memory has all that is asked.\nConclusion: STOP"


def generate(text: str, context: engine_lib.CallContext) -> str:
  """The output the prompt asks for.

  With a memory it is a report and the answer. Without one it is an analysis
  of the question, or an answer from what the rules know without a source,
  which is nothing.
  """
  del context
  prompt = prompt_reader.read_prompt(text)
  if prompt.has_memory:
    outcome = _judge(prompt)
    answer = UNKNOWN if outcome.missing else outcome.answer
    return f"{_report(prompt)}\n<answer>{answer}</answer>"
  if "<answer>" in text:
    return f"{NO_SOURCE}\n<answer>{UNKNOWN}</answer>"
  return _analysis(prompt.question)


def use_tool(text: str, context: engine_lib.CallContext) -> str:
  """What the engine behind python_coder and base_generator answers."""
  del context
  instructions, _, last_line = text.rpartition("\n")
  if "```python" not in instructions:
    return NO_SOURCE
  query = last_line.removeprefix(_QUERY).strip()
  expression = _EXPRESSION.fullmatch(query)
  if expression is None:
    code = 'raise ValueError("no numbers to compute with")'
  else:
    code = f"print({expression[1]})"
  return f"```python\n{code}\n```"


def read_operation(sub_goal: str) -> schema.Operation | None:
  """The operation a sub-goal names, by its first verb."""
  for word in re.findall(r"[a-z]+", sub_goal.lower()):
    if word in _VERBS:
      return _VERBS[word]
  return None


def _search_query(prompt: prompt_reader.Prompt) -> str:
  wanted = prompt.sub_goal.removeprefix("find the").strip()
  name = "" if prompt.context.lower() == NO_CONTEXT else prompt.context
  return f"{name} {wanted}".strip()


def _computation(prompt: prompt_reader.Prompt) -> str:
  """`Compute 129 - 50`, if both numbers and the operation are known."""
  operation = read_operation(prompt.sub_goal)
  query = grammar.parse(prompt.question)
  if operation is None or query is None or len(query.paths) != 2:
    return NO_NUMBERS
  known = reader.know(prompt.turns)
  numbers = []
  for path in query.paths:
    found = reader.resolve(path, known)
    if isinstance(found, reader.Missing) or not found[0].isdecimal():
      return NO_NUMBERS
    numbers.append(found[0])
  if operation == schema.Operation.DIFFERENCE:
    numbers.sort(key=int, reverse=True)
  return f"Compute {numbers[0]} {_SYMBOLS[operation]} {numbers[1]}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
  """What the memory answers, or what it lacks."""

  answer: str = ""
  missing: str = ""


def _judge(prompt: prompt_reader.Prompt) -> _Outcome:
  """Answers the question from the memory, if it can be answered.

  A computed answer is the last Python number that came after both facts,
  right or wrong: whether the planner chose the right operation is not judged.
  """
  query = grammar.parse(prompt.question)
  if query is None:
    return _Outcome(missing="the meaning of the question")
  known = reader.know(prompt.turns)
  found = [reader.resolve(path, known) for path in query.paths]
  missing = [str(gap) for gap in found if isinstance(gap, reader.Missing)]
  if missing:
    return _Outcome(missing=" and ".join(missing))
  values = [fact for fact in found if not isinstance(fact, reader.Missing)]
  if query.operation is None:
    return _Outcome(answer=values[-1][0])
  complete = max(turn for _, turn in values)
  numbers = [number for number, turn in known.numbers if turn > complete]
  if not numbers:
    return _Outcome(missing=f"the {query.operation} of the two numbers")
  return _Outcome(answer=numbers[-1])


def _report(prompt: prompt_reader.Prompt) -> str:
  """What the memory says of the question, path by path."""
  query = grammar.parse(prompt.question)
  if query is None:
    return NO_SOURCE
  known = reader.know(prompt.turns)
  lines = []
  for path in query.paths:
    found = reader.resolve(path, known)
    if isinstance(found, reader.Missing):
      lines.append(f"Not found: {found}.")
    else:
      lines.append(f"Found: {path} is {found[0]}.")
  return "\n".join(lines)


def _analysis(question: str) -> str:
  query = grammar.parse(question)
  if query is None:
    return "The question is of an unknown form."
  facts = " and ".join(str(path) for path in query.paths)
  step = f", and then their {query.operation}" if query.operation else ""
  return f"The question needs {facts}{step}."
