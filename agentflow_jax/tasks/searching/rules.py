"""The frozen modules of a search for evidence, as rules on prompts.

  planner     first the question as it stands, the baseline of one query; then
              what the pages of its names link to; then these names
  executor    `tool.execute(query=...)`; the sub-goal says whether the query is
              the step's context, the question, or what the page of that name
              links to, as far as the memory shows it
  verifier    CONTINUE: nobody tells it when the evidence is complete
  generator   the titles of the pages that were found

Each rule sees one prompt, like the language model it stands for. They know no
question form and no corpus, so they serve any; what to search for is left to
the planner. The scorers of such tasks are in rewards/evidence.py.
"""

import itertools
import json
import re
from collections.abc import Callable, Mapping

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.searching import names as names_lib

Rule = Callable[[str, engine_lib.CallContext], str]

SUB_GOAL = "find pages"
QUESTION_SUB_GOAL = "find pages for the question"
LINKS_SUB_GOAL = "find pages that it names"
SUB_GOALS = (SUB_GOAL, QUESTION_SUB_GOAL, LINKS_SUB_GOAL)
NO_CONTEXT = "none"  # of the question, which needs no name
BETWEEN = ", "  # names of a context
_LINKS = 2  # of a page that are searched; the first ones say most
_IN_BRACKETS = re.compile(r"\s*\([^)]*\)$")
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
  """The step of a fixed order, with the first tool that searches."""
  del context
  prompt = prompt_reader.read_prompt(text)
  tools = filter(prompt_reader.is_search, prompt_reader.tool_names(text))
  tool_name = next(tools, "")
  asked = BETWEEN.join(dict.fromkeys(names_lib.names(prompt.question)))
  if not prompt.turns or not asked:
    return labelled(NO_CONTEXT, tool_name, QUESTION_SUB_GOAL)
  goal = LINKS_SUB_GOAL if len(prompt.turns) == 1 else SUB_GOAL
  return labelled(asked, tool_name, goal)


def execute(text: str, context: engine_lib.CallContext) -> str:
  """The command of the step at the end of the prompt.

  Example: for the context "Get Low" and LINKS_SUB_GOAL, with "Get Low (song): A
  song by Dillon Francis." in the memory, the query is "Dillon Francis".
  """
  del context
  prompt = prompt_reader.read_prompt(text)
  query = prompt.context
  if prompt.sub_goal == QUESTION_SUB_GOAL:
    query = prompt.question
  elif prompt.sub_goal == LINKS_SUB_GOAL:
    query = BETWEEN.join(_links(prompt)) or query
  # Python reads a JSON string as JSON does, but for escaped surrogate pairs.
  literal = json.dumps(query, ensure_ascii=False)
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


def _links(prompt: prompt_reader.Prompt) -> list[str]:
  """Names that the pages of the context link to, page by page."""
  pages: dict[str, str] = {}
  for turn in prompt.turns:
    for title, text in prompt_reader.passages(turn.result):
      pages.setdefault(_bare(title), text)
  found = []
  for name in prompt.context.split(BETWEEN):
    text = pages.get(_bare(name), "")
    found += itertools.islice(names_lib.linked_names(text), _LINKS)
  return found


def _bare(title: str) -> str:
  """A title without what tells it from others: "Get Low (song)"."""
  return _IN_BRACKETS.sub("", title).strip().casefold()


def labelled(context: str, tool_name: str, sub_goal: str = SUB_GOAL) -> str:
  """A plan in the planner's labelled format."""
  return "\n".join(
    (
      f"{messages_lib.CONTEXT} {context}",
      f"{messages_lib.SUB_GOAL} {sub_goal}",
      f"{messages_lib.TOOL_NAME} {tool_name}",
    )
  )
