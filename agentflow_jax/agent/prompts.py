"""Every prompt of the four modules, as pure functions of named arguments.

What is shared comes first, so that a prefix is computed once for many calls:
instructions and tools (equal for all questions), the question, its analysis,
the memory with the newest turn last, and the lines of this call at the end.
The generator's instructions stand at the end, because its outputs share all
the rest. A label of core/messages.py at a line start always opens a section;
texts of models, tools and users are put behind labels by agent/quoting.py.

The planner has two styles. `full` is for a general language model:

  (system) one line
  (user) how to decide, `Tools:` with all they need, the answer's format,
         `Question:`, `Query Analysis:`, `Memory:`, `Turn 2 of 5`

`compact` is for a small planner that already speaks the format: one user
message of `Tools:` (names only), `Question:`, `Memory:`, `Turn 2 of 5`.

What this does not do: cut anything. The memory comes rendered within its
budget (agent/memory.py).
"""

import json
from collections.abc import Sequence

from agentflow_jax.agent import memory as memory_lib
from agentflow_jax.agent import quoting
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

Messages = tuple[messages_lib.Message, ...]

_MAX_DESCRIPTIONS = 256
_descriptions: dict[int, tuple[tool_lib.ToolSpec, str]] = {}

LABELLED = "labelled"
JSON = "json"

# The last line of each generator prompt, by which rules tell them apart.
OUTPUT_ANALYSIS = "Output: query analysis"
OUTPUT_BASE = "Output: base answer"
OUTPUT_FINAL = "Output: report"
OUTPUT_DIRECT = "Output: direct answer"

_PLANNER_SYSTEM = (
  "You plan, one step at a time, how a question is answered with tools."
)
_EXECUTOR_SYSTEM = "You write the tool call that carries out one planned step."
_VERIFIER_SYSTEM = (
  "You judge whether what was found out is enough to answer a question."
)
_GENERATOR_SYSTEM = (
  "You write the answer to a question from what was found out."
)

_PLANNER_TASK = """\
Decide the next step towards an answer. Other modules write the tool call, run \
it and record the result in the memory; then you decide again, until the \
question can be answered or the turns are used up."""

_PLANNER_RULES = """\
How to decide:
- Read the question, then the memory. Build on the results that are there, and \
do not repeat a step that already failed in the same way.
- Choose exactly one of the tools, by its description, limits and advice.
- Set one sub-goal that this tool can reach in one step.
- Put into the context whatever the step needs: names, numbers, code, and what \
earlier results say.
- The last line of this message tells which turn this is and how many there \
are. Plan so that an answer is possible when they are used up."""

_LABELLED_FORMAT = """\
Format: these four parts, in this order, and nothing after them.
  Justification: why this step, in one or two sentences
  Context: what the step needs to know
  Sub-Goal: what the step must find out or produce
  Tool Name: one tool's name, exactly as it is listed"""

_JSON_FORMAT = """\
Format: one JSON object with these four text fields, and nothing else.
  {"justification": "why this step, in one or two sentences",
   "context": "what the step needs to know",
   "sub_goal": "what the step must find out or produce",
   "tool_name": "one tool's name, exactly as it is listed"}"""

_EXECUTOR_TASK = """\
Write the call of the tool for the step at the end of this message."""

_EXECUTOR_RULES = """\
How to write it:
- Give the arguments by name and write every value out: text in quotes, \
numbers, True, False, lists. The call is read, not run as a program, so \
f-strings, loops, imports and results of other calls have no effect.
- The tool sees the arguments and nothing else. Put the names, numbers and \
details it needs into them, from the context and from the memory.
- Aim at the sub-goal, not at the whole question.
- Several calls are several lines."""

_EXECUTOR_FORMAT = """\
Format: one code block, such as
```python
execution = tool.execute(query="height of Mont Blanc in metres")
```"""

_VERIFIER_TASK = """\
Decide whether the memory is enough to answer the question or another turn is \
needed."""

_VERIFIER_RULES = """\
How to judge:
- Completeness: results in the memory answer every part of the question.
- Support: the answer follows from results, not from guesses; an error \
supports nothing.
- Consistency: the results do not contradict each other or the question.
- Certainty: a doubtful fact or an unchecked calculation needs another turn, \
if one of the tools can settle it."""

_VERIFIER_FORMAT = """\
Format: your reasons in a few sentences, with what is missing, if anything is; \
then, as the last line, one of
  Conclusion: STOP
  Conclusion: CONTINUE
STOP means that the memory is enough, CONTINUE that another turn is needed."""

_ANSWER_FORMAT = """\
End with the answer itself, and only that (a name, a number, a phrase, an \
expression), in one pair of tags: <answer>...</answer>"""

_ANALYSIS_TASK = """\
Analyse the question before any step is taken. Do not answer it. Write, in a \
few sentences each: what is asked and in which form the answer is wanted; \
which facts and skills it takes; which of the tools can help, with what; and \
what to watch out for."""

_BASE_TASK = """\
Answer the question from what you know, without tools."""

_FINAL_TASK = """\
Write a report from the memory: what was asked; what each turn did and found, \
errors included; what follows for the question; and how certain that is. Say \
so where the memory leaves something open."""

_DIRECT_TASK = """\
Answer the question from the memory, in a few sentences. Where the memory \
leaves something open, give the answer it supports best."""


def planner(
  *,
  question: str,
  specs: Sequence[tool_lib.ToolSpec],
  memory: str,
  turn: int,
  max_turns: int,
  style: str,
  plan_format: str = LABELLED,
  analysis: str = "",
) -> Messages:
  """Asks for the step of `turn` (from 0); the last line tells the budget."""
  last_line = f"Turn {turn + 1} of {max_turns}"
  if style == memory_lib.COMPACT:
    lines = [
      _tool_names(specs),
      *_state(question, analysis, memory),
      last_line,
    ]
    return (messages_lib.Message("user", "\n".join(lines)),)
  plan_rules = _JSON_FORMAT if plan_format == JSON else _LABELLED_FORMAT
  return _messages(
    _PLANNER_SYSTEM,
    _paragraphs(
      _PLANNER_TASK, describe_tools(specs), _PLANNER_RULES, plan_rules
    ),
    *_state(question, analysis, memory),
    last_line,
  )


def executor(
  *,
  question: str,
  specs: Sequence[tool_lib.ToolSpec],
  memory: str,
  decision: trajectory_lib.Decision,
  max_calls: int,
) -> Messages:
  """Asks for the call of `decision`, whose three lines are the last ones."""
  return _messages(
    _EXECUTOR_SYSTEM,
    _paragraphs(
      _EXECUTOR_TASK,
      describe_tools(specs),
      f"{_EXECUTOR_RULES} At most {max_calls} are run.",
      _EXECUTOR_FORMAT,
    ),
    *_state(question, "", memory),
    quoting.section(messages_lib.CONTEXT, decision.context),
    quoting.section(messages_lib.SUB_GOAL, decision.sub_goal),
    quoting.section(messages_lib.TOOL_NAME, decision.tool_name),
  )


def verifier(
  *,
  question: str,
  specs: Sequence[tool_lib.ToolSpec],
  memory: str,
  turn: int,
  max_turns: int,
  analysis: str = "",
) -> Messages:
  """Asks whether `memory`, with the open `turn` (from 0), is enough."""
  return _messages(
    _VERIFIER_SYSTEM,
    _paragraphs(
      _VERIFIER_TASK, _tool_names(specs), _VERIFIER_RULES, _VERIFIER_FORMAT
    ),
    *_state(question, analysis, memory),
    f"Turn {turn + 1} of {max_turns} is done. Is the memory enough to answer "
    "the question? End with the Conclusion line.",
  )


def direct_answer(
  *, question: str, memory: str, analysis: str = ""
) -> Messages:
  """Asks for the short answer."""
  return _messages(
    _GENERATOR_SYSTEM,
    *_state(question, analysis, memory),
    "",
    _DIRECT_TASK,
    _ANSWER_FORMAT,
    OUTPUT_DIRECT,
  )


def final_report(*, question: str, memory: str, analysis: str = "") -> Messages:
  """Asks for the long answer."""
  return _messages(
    _GENERATOR_SYSTEM,
    *_state(question, analysis, memory),
    "",
    _FINAL_TASK,
    _ANSWER_FORMAT,
    OUTPUT_FINAL,
  )


def base_answer(*, question: str) -> Messages:
  """Asks for an answer without tools, the baseline."""
  return _messages(
    _GENERATOR_SYSTEM,
    quoting.section(messages_lib.QUESTION, question),
    "",
    _BASE_TASK,
    _ANSWER_FORMAT,
    OUTPUT_BASE,
  )


def query_analysis(
  *, question: str, specs: Sequence[tool_lib.ToolSpec]
) -> Messages:
  """Asks what the question needs, before the first turn."""
  return _messages(
    _GENERATOR_SYSTEM,
    _paragraphs(describe_tools(specs)),
    quoting.section(messages_lib.QUESTION, question),
    "",
    _ANALYSIS_TASK,
    OUTPUT_ANALYSIS,
  )


def describe_tools(specs: Sequence[tool_lib.ToolSpec]) -> str:
  """The `Tools:` section with all a model needs to choose and call one."""
  return "\n".join([messages_lib.TOOLS, *map(_describe, specs)])


def _describe(spec: tool_lib.ToolSpec) -> str:
  """As `_write_description`, written once per spec.

  Every turn shows the same few specs. They can not be hashed (a schema is a
  dict), so they are told apart by identity and kept, so that no other object
  gets the identity of one.
  """
  kept, text = _descriptions.get(id(spec), (None, ""))
  if kept is spec:
    return text
  if len(_descriptions) >= _MAX_DESCRIPTIONS:
    _descriptions.clear()
  text = _write_description(spec)
  _descriptions[id(spec)] = (spec, text)
  return text


def _write_description(spec: tool_lib.ToolSpec) -> str:
  schema = json.dumps(spec.inputs, ensure_ascii=False)
  lines = [
    f"- {spec.name}: {spec.description}",
    f"Arguments (JSON schema): {schema}",
    f"Returns: {spec.output}",
    *(f"Example: {command} ({effect})" for command, effect in spec.demos),
    *(f"Limit: {limit}" for limit in spec.limitations),
    *(f"Advice: {advice}" for advice in spec.best_practices),
  ]
  return quoting.neutralise("\n".join(lines)).replace("\n", "\n  ")


def _tool_names(specs: Sequence[tool_lib.ToolSpec]) -> str:
  return f"{messages_lib.TOOLS} {', '.join(spec.name for spec in specs)}"


def _state(question: str, analysis: str, memory: str) -> list[str]:
  """The sections that differ between questions and grow with the turns."""
  lines = [quoting.section(messages_lib.QUESTION, question)]
  if analysis:
    lines.append(quoting.section(messages_lib.ANALYSIS, analysis))
  lines.append(messages_lib.MEMORY)
  if memory:
    lines.append(memory.removesuffix("\n"))
  return lines


def _paragraphs(*texts: str) -> str:
  """Texts with an empty line after each."""
  return "\n\n".join(texts) + "\n"


def _messages(system: str, *lines: str) -> Messages:
  return (
    messages_lib.Message("system", system),
    messages_lib.Message("user", "\n".join(lines)),
  )
