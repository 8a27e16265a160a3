"""The rules of the frozen modules, on the prompts the agent really writes."""

import ast
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.agent import commands, parsing, prompts
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks.worldfacts import rules, schema
from agentflow_jax.tools import (
  base_generator,
  monty_sandbox,
  python_coder,
  wikipedia_search,
)

_ROLE = messages_lib.ModuleRole
_SPECS = (wikipedia_search.SPEC, python_coder.SPEC, base_generator.SPEC)
_SEARCH = wikipedia_search.SPEC.name
_PYTHON = python_coder.SPEC.name
_GENERALIST = base_generator.SPEC.name

_TIN = (
  "Turn {n}: Wikipedia_Search_Tool | Tin | find the atomic number\n"
  "Result: Tin: Tin is a chemical element with the symbol Sn. Its atomic "
  "number is 50.\nVerdict: CONTINUE\n"
)
_GOLD = (
  "Turn {n}: Wikipedia_Search_Tool | Gold | find the atomic number\n"
  "Result: Gold: Gold is a chemical element with the symbol Au. Its atomic "
  "number is 79.\nVerdict: CONTINUE\n"
)
_SUM = "What is the sum of the atomic numbers of Tin and Gold?"
_NOT_KNOWN = "Compute with numbers that are not known yet"
_INSTRUCTIONS = python_coder.instructions(monty_sandbox.MontySandbox)


def _python(result):
  return (
    "Turn {n}: Python_Coder_Tool | none | add the two numbers\n"
    f"Result: {result}\nVerdict: CONTINUE\n"
  )


def _memory(*turns):
  return "".join(
    turn.replace("{n}", str(number)) for number, turn in enumerate(turns, 1)
  )


def _context(role):
  return engine_lib.CallContext(role=role)


def _query(question, memory, context, sub_goal, tool_name):
  """What the executor makes of a step, as the agent reads it."""
  (message,) = prompts.executor(
    question=question,
    specs=_SPECS,
    memory=memory,
    decision=trajectory_lib.Decision(
      context=context, sub_goal=sub_goal, tool_name=tool_name
    ),
    max_calls=4,
  )[-1:]
  text = rules.execute(message.content, _context(_ROLE.EXECUTOR))
  parsed = commands.parse_command(text)
  assert not isinstance(parsed, trajectory_lib.ParseFailure), text
  (call,) = parsed
  assert not isinstance(call, trajectory_lib.ParseFailure), text
  return call["query"]


def _verdict(question, memory):
  (message,) = prompts.verifier(
    question=question, specs=_SPECS, memory=memory, turn=0, max_turns=4
  )[-1:]
  return parsing.parse_verdict(
    rules.verify(message.content, _context(_ROLE.VERIFIER))
  )


def _answer(question, memory):
  (message,) = prompts.direct_answer(question=question, memory=memory)[-1:]
  return parsing.extract_answer(
    rules.generate(message.content, _context(_ROLE.GENERATOR))
  )


def _tool(instructions, query):
  """As agentflow_jax/tools/asking.py asks: the query is one line."""
  line = " ".join(query.splitlines())
  return rules.use_tool(f"{instructions}\nQuery: {line}", _context(_ROLE.TOOL))


def test_every_frozen_role_has_its_rule():
  assert dict(rules.rules()) == {
    _ROLE.EXECUTOR: rules.execute,
    _ROLE.VERIFIER: rules.verify,
    _ROLE.GENERATOR: rules.generate,
    _ROLE.TOOL: rules.use_tool,
  }


def test_rules_never_see_the_facts():
  """Not even by accident: their modules do not import the tables."""
  script = (
    "import sys; from agentflow_jax.tasks.worldfacts import rules; "
    "bad = [m for m in sys.modules if m.endswith(('.facts', '.pages', "
    "'.questions', '.names', '.split'))]; sys.exit(str(bad) if bad else 0)"
  )
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  ("context", "sub_goal", "expected"),
  [
    ("Laos", "find the currency", "Laos currency"),
    ("none", "find the currency", "currency"),
    ("None", "add the two numbers", "add the two numbers"),
    ('a "b" \\ c', "find the x'y", 'a "b" \\ c x\'y'),
    ("caf\u00e9 \U0001f600", "find the \u2028", "caf\u00e9 \U0001f600"),
  ],
)
def test_search_queries(context, sub_goal, expected):
  query = _query("Who?", "", context, sub_goal, _SEARCH)
  assert query == expected


@pytest.mark.parametrize(
  ("sub_goal", "expected"),
  [
    ("add the two numbers", "Compute 50 + 79"),
    ("subtract the smaller number from the larger", "Compute 79 - 50"),
    ("multiply the two numbers", "Compute 50 * 79"),
    ("the SUM of both", "Compute 50 + 79"),
    ("find the difference", "Compute 79 - 50"),
    ("find the atomic number", _NOT_KNOWN),
    ("answer the question", _NOT_KNOWN),
    ("address the question", _NOT_KNOWN),
  ],
)
def test_the_operation_is_the_planner_s_not_the_question_s(sub_goal, expected):
  memory = _memory(_TIN, _GOLD)
  assert _query(_SUM, memory, "none", sub_goal, _PYTHON) == expected


@pytest.mark.parametrize(
  ("question", "memory"),
  [
    (_SUM, ""),
    (_SUM, _memory(_TIN)),
    (_SUM, _memory(_GOLD, _python("129"))),
    ("What is the atomic number of Tin?", _memory(_TIN, _GOLD)),
    ("What is 50 plus 79?", _memory(_TIN, _GOLD)),
    (
      "What is the sum of the atomic numbers of Tin and Lead?",
      _memory(_TIN, _GOLD),
    ),
  ],
)
def test_numbers_that_are_not_known_are_not_made_up(question, memory):
  query = _query(question, memory, "50 79", "add the two numbers", _PYTHON)
  assert query == _NOT_KNOWN


def test_the_generalist_gets_the_sub_goal():
  query = _query(_SUM, "", "Laos", "answer the question", _GENERALIST)
  assert query == "answer the question"


@pytest.mark.parametrize(
  ("question", "memory", "stop", "missing"),
  [
    ("What is the atomic number of Tin?", _memory(_TIN), True, ""),
    (
      "What is the atomic number of Tin?",
      _memory(_GOLD),
      False,
      "the atomic number of Tin",
    ),
    (_SUM, "", False, "number of Tin and the atomic number of Gold"),
    (_SUM, _memory(_TIN), False, "Missing: the atomic number of Gold."),
    (_SUM, _memory(_TIN, _GOLD), False, "the sum of the two numbers"),
    (_SUM, _memory(_TIN, _GOLD, _python("129")), True, ""),
    # A wrong operation is the planner's mistake and ends the episode, too.
    (_SUM, _memory(_TIN, _GOLD, _python("29")), True, ""),
    # A number from before the facts were known computes nothing of them.
    (_SUM, _memory(_TIN, _python("129"), _GOLD), False, "the sum of"),
    (_SUM, _memory(_python("129"), _TIN, _GOLD), False, "the sum of"),
    (_SUM, _memory(_TIN, _GOLD, _python("error (x): no")), False, "the sum"),
    ("What is the meaning of life?", "", False, "the meaning of the question"),
  ],
)
def test_the_verifier_stops_if_and_only_if_it_can_be_answered(
  question, memory, stop, missing
):
  verdict = _verdict(question, memory)
  assert verdict.parsed
  assert verdict.stop == stop
  assert missing in verdict.reason
  assert (_answer(question, memory) != "unknown") == stop


@pytest.mark.parametrize(
  ("question", "memory", "answer"),
  [
    ("What is the atomic number of Tin?", _memory(_TIN), "50"),
    ("What is the chemical symbol of Gold?", _memory(_TIN, _GOLD), "Au"),
    (_SUM, _memory(_TIN, _GOLD, _python("29")), "29"),
    (_SUM, _memory(_TIN, _GOLD, _python("29"), _python("129")), "129"),
    (_SUM, _memory(_TIN, _GOLD), "unknown"),
    (_SUM, "", "unknown"),
    ("What is the meaning of life?", _memory(_TIN), "unknown"),
  ],
)
def test_answers(question, memory, answer):
  assert _answer(question, memory) == answer


def test_the_other_outputs_of_the_generator():
  report = prompts.final_report(question=_SUM, memory=_memory(_TIN))
  text = rules.generate(report[-1].content, _context(_ROLE.GENERATOR))
  assert text == (
    "Found: the atomic number of Tin is 50.\n"
    "Not found: the atomic number of Gold.\n<answer>unknown</answer>"
  )
  base = prompts.base_answer(question=_SUM)
  text = rules.generate(base[-1].content, _context(_ROLE.GENERATOR))
  assert parsing.extract_answer(text) == "unknown"
  analysis = prompts.query_analysis(question=_SUM, specs=_SPECS)
  text = rules.generate(analysis[-1].content, _context(_ROLE.GENERATOR))
  assert text == (
    "The question needs the atomic number of Tin and the atomic number of "
    "Gold, and then their sum."
  )


@pytest.mark.parametrize(
  ("query", "code"),
  [
    ("Compute 50 + 79", "print(50 + 79)"),
    ("Compute 79 - 50", "print(79 - 50)"),
    ("Compute 50 * 79", "print(50 * 79)"),
  ],
)
def test_expressions_become_programs(query, code):
  text = _tool(_INSTRUCTIONS, query)
  assert python_coder.first_python_block(text) == code


@pytest.mark.parametrize(
  "query",
  [
    _NOT_KNOWN,
    "",
    "Compute 9**9",
    "Compute 9 ** 9",
    "Compute 1 + 2 + 3",
    "Compute 1 / 0",
    "Compute 1 + x",
    "Compute 1+2",
    "Compute 1 + 2)\nimport os\nprint(1",
    "Compute 1 + 2); open('/etc/passwd')",
    "compute 1 + 2",
    "Compute \u0661 + \u0662",
    "Compute " + "9" * 19 + " + 1",
  ],
)
def test_anything_else_becomes_no_program(query):
  text = _tool(_INSTRUCTIONS, query)
  assert python_coder.first_python_block(text) == (
    'raise ValueError("no numbers to compute with")'
  )


@hypothesis.given(
  query=st.one_of(
    st.text(),
    st.text(alphabet="0123456789+-*() \n'\"`", max_size=40).map(
      "Compute {}".format
    ),
  )
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_programs_hold_nothing_but_one_operation(query):
  code = python_coder.first_python_block(_tool(_INSTRUCTIONS, query))
  assert code is not None
  (statement,) = ast.parse(code).body
  if isinstance(statement, ast.Raise):
    return
  assert isinstance(statement, ast.Expr)
  call = statement.value
  assert isinstance(call, ast.Call) and ast.unparse(call.func) == "print"
  (operation,) = call.args
  assert isinstance(operation, ast.BinOp)
  assert isinstance(operation.left, ast.Constant)
  assert isinstance(operation.right, ast.Constant)


def test_the_generalist_does_not_know():
  for query in ("Compute 50 + 79", "```python\nprint(1)\n```", "Who?"):
    text = _tool(base_generator._INSTRUCTIONS, query)
    assert text == "I do not know that without a source."


@hypothesis.given(text=st.text(max_size=300))
@hypothesis.settings(max_examples=200, deadline=None)
def test_no_text_breaks_a_rule(text):
  labels = "Question: {0}\nMemory:\nTurn 1: {0}\nResult: {0}\nContext: {0}\n"
  for prompt in (text, labels.replace("{0}", text)):
    for role, rule in rules.rules().items():
      assert isinstance(rule(prompt, _context(role)), str)


@pytest.mark.parametrize(
  ("text", "operation"),
  [
    ("add the two numbers", schema.Operation.SUM),
    ("Multiply, do not add", schema.Operation.PRODUCT),
    ("take the difference", schema.Operation.DIFFERENCE),
    ("additional facts", None),
    ("", None),
  ],
)
def test_the_first_verb_counts(text, operation):
  assert rules.read_operation(text) == operation
