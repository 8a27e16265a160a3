"""The frozen modules of a search for evidence, as rules on prompts.

  planner     the question as it stands: the baseline of one query
  executor    `tool.execute(query=...)` with the step's context as the query
  verifier    CONTINUE: nobody tells it when the evidence is complete
  generator   the titles of the pages that were found

Each rule sees one prompt, like the language model it stands for. They know no
question form and no corpus, so they serve any; what to search for is left to
the planner. The scorers of such tasks are in rewards/evidence.py.
"""

import json
from collections.abc import Callable, Mapping

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks import prompt_reader

Rule = Callable[[str, engine_lib.CallContext], str]

SUB_GOAL = "find pages"
NOTHING = "nothing"  # the answer when no page was found
_SEPARATOR = "; "


def rules() -> Mapping[messages_lib.ModuleRole, Rule]:
  """The rule of every role, for a ScriptedEngine."""
  return {
    messages_lib.ModuleRole.PLANNER: plan,
    messages_lib.ModuleRole.EXECUTOR: execute,
    messages_lib.ModuleRole.VERIFIER: verify,
    messages_lib.ModuleRole.GENERATOR: generate,
  }


def plan(text: str, context: engine_lib.CallContext) -> str:
  """Searches for the question, with the first tool that searches."""
  del context
  prompt = prompt_reader.read_prompt(text)
  names = filter(prompt_reader.is_search, prompt_reader.tool_names(text))
  return labelled(prompt.question, next(names, ""))


def execute(text: str, context: engine_lib.CallContext) -> str:
  """The command of the step at the end of the prompt.

  Example: context "Get Low, Dillon Francis" is searched as it stands.
  """
  del context
  prompt = prompt_reader.read_prompt(text)
  # Python reads a JSON string as JSON does, but for escaped surrogate pairs.
  literal = json.dumps(prompt.context, ensure_ascii=False)
  return f"```python\nexecution = tool.execute(query={literal})\n```"


def verify(text: str, context: engine_lib.CallContext) -> str:
  """CONTINUE, whatever was found."""
  del text, context
  return "There may be more to find.\nConclusion: CONTINUE"


def generate(text: str, context: engine_lib.CallContext) -> str:
  """The titles that the memory shows, each once, in the order of finding."""
  del context
  prompt = prompt_reader.read_prompt(text)
  titles = dict.fromkeys(
    title
    for turn in prompt.turns
    for title, _ in prompt_reader.passages(turn.result)
  )
  found = _SEPARATOR.join(titles) or NOTHING
  return f"Found: {found}.\n<answer>{found}</answer>"


def labelled(query: str, tool_name: str) -> str:
  """A plan that searches for `query`, in the planner's labelled format."""
  return "\n".join(
    (
      f"{messages_lib.CONTEXT} {query}",
      f"{messages_lib.SUB_GOAL} {SUB_GOAL}",
      f"{messages_lib.TOOL_NAME} {tool_name}",
    )
  )
