"""Names in text, rules that pass searches on, and a planner at random."""

import random

import pytest

from agentflow_jax.agent import commands, parsing, prompts
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tasks import prompt_reader
from agentflow_jax.tasks.searching import names, random_strategy, rules

_TOOL = "Wikipedia_Search_Tool"
_SPECS = [
  tool_lib.ToolSpec(
    name=name,
    description="",
    inputs={"type": "object"},
    output="str",
    demos=(),
    limitations=(),
    best_practices=(),
  )
  for name in ("Python_Coder_Tool", _TOOL)
]
_QUESTION = "Who directed the film of the song Get Low, and the Life of Pi?"
_MEMORY = f"""\
Turn 1: {_TOOL} | Get Low | find pages
Result: Get Low (song): A song by Dillon Francis and DJ Snake.
Mission: Impossible: A film of 1996.
Verdict: CONTINUE
"""


def _prompt(memory="", question=_QUESTION):
  messages = prompts.planner(
    question=question,
    specs=_SPECS,
    memory=memory,
    turn=1,
    max_turns=3,
    style="compact",
  )
  return messages[-1].content


def _context(role=messages_lib.ModuleRole.PLANNER):
  return engine_lib.CallContext(role=role)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("Who directed Get Low and when?", ["Get Low"]),
    (
      "Is the Life of Pi older than Nowhere Man?",
      ["Life of Pi", "Nowhere Man"],
    ),
    ("The mother of Pál Gábor, a director", ["Pál Gábor"]),
    ("In 1984 it was J. R. R. Tolkien's", ["J. R. R. Tolkien's"]),
    ("born 8 May 1984, Apollo 13", ["May 1984", "Apollo 13"]),
    ("what is it", []),
    ("", []),
  ],
)
def test_names_are_runs_of_capitalised_words(text, expected):
  assert list(names.names(text)) == expected


def test_names_are_found_in_time_linear_in_a_hostile_text():
  assert len(list(names.names("A of " * 100_000 + "x" * 1_000_000))) <= 1


def test_the_baseline_searches_for_the_question():
  plan = rules.plan(_prompt(), _context())
  decision = parsing.parse_decision(plan, _SPECS)
  assert (decision.context, decision.tool_name) == (_QUESTION, _TOOL)


@pytest.mark.parametrize("query", ["Get Low, Pi", 'a "b" \\ c', "é\u2028x", ""])
def test_the_executor_searches_for_the_context_as_it_stands(query):
  text = f"{_prompt()}\nContext: {query}\nSub-Goal: find pages\nTool Name: X"
  command = rules.execute(text, _context())
  (arguments,) = commands.parse_command(command)
  assert arguments["query"] == prompt_reader.read_prompt(text).context


def test_the_verifier_goes_on_and_the_generator_names_the_pages():
  assert rules.verify("", _context()).endswith("Conclusion: CONTINUE")
  text = rules.generate(_prompt(_MEMORY), _context())
  assert text.endswith("<answer>Get Low (song); Mission</answer>")
  assert "<answer>nothing</answer>" in rules.generate(_prompt(), _context())


def test_random_plans_are_readable_and_copy_from_the_prompt():
  rng = random.Random(0)
  queries = set()
  for _ in range(300):
    plan = random_strategy.random_plan(_prompt(_MEMORY), rng, [_TOOL])
    decision = parsing.parse_decision(plan, _SPECS)
    assert decision.sub_goal == rules.SUB_GOAL
    queries.add(decision.context)
  single = {name for query in queries for name in query.split(", ")}
  assert single == {
    *("Get Low", "Life of Pi"),  # of the question
    *("Get Low (song)", "Mission"),  # titles
    *("Dillon Francis and DJ Snake", "Impossible"),  # of the texts
  }
  assert len(queries) > 10 and any(", " in query for query in queries)


def test_without_a_name_the_question_is_searched():
  prompt = _prompt(question="who is it?")
  plan = random_strategy.random_plan(prompt, random.Random(0), [_TOOL])
  assert plan.startswith("Context: who is it?\n")


def test_tool_names_are_read_from_compact_prompts():
  assert prompt_reader.tool_names(_prompt()) == ["Python_Coder_Tool", _TOOL]
  assert prompt_reader.tool_names("Question: x") == []
