"""Names in text, rules that pass searches on, and a planner at random."""

import collections
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
    ("by Frankie Valli. The end", ["Frankie Valli"]),
    ("what is it", []),
    ("", []),
  ],
)
def test_names_are_runs_of_capitalised_words(text, expected):
  assert list(names.names(text)) == expected


def test_linked_names_stand_behind_a_link():
  text = "Pi is a film by Ang Lee, the son of Lee Sheng. In Taipei, Pi won."
  assert list(names.linked_names(text)) == ["Ang Lee", "Lee Sheng"]
  text = "Ang Lee is the son of Lee Sheng and of Rome"
  assert list(names.linked_names(text)) == ["Lee Sheng and of Rome"]
  text = 'Sung by "Ang Lee" of, or about, Rome by night'
  assert list(names.linked_names(text)) == ["Ang Lee"]


def test_names_are_found_in_time_linear_in_a_hostile_text():
  assert len(list(names.names("A of " * 100_000 + "x" * 1_000_000))) <= 1


def test_the_baseline_searches_for_the_question():
  plan = rules.plan(_prompt(), _context())
  decision = parsing.parse_decision(plan, _SPECS)
  assert decision.tool_name == _TOOL
  assert _query(plan) == _QUESTION


def test_then_for_what_its_names_link_to_and_then_for_its_names():
  steps = []
  memory = ""
  for turn in range(3):
    decision = parsing.parse_decision(
      rules.plan(_prompt(memory), _context()), _SPECS
    )
    steps.append((decision.sub_goal, decision.context))
    memory += _MEMORY.replace("Turn 1", f"Turn {turn + 1}")
  names_asked = "Get Low, Life of Pi"
  assert steps == [
    (rules.QUESTION_SUB_GOAL, rules.NO_CONTEXT),
    (rules.LINKS_SUB_GOAL, names_asked),
    (rules.SUB_GOAL, names_asked),
  ]
  # A question without a name is all that there is to search for.
  plan = rules.plan(_prompt(_MEMORY, "who is it?"), _context())
  assert rules.QUESTION_SUB_GOAL in plan


def _query(plan: str, prompt: str | None = None) -> str:
  """What the executor's rule searches for."""
  command = rules.execute(f"{prompt or _prompt()}\n{plan}", _context())
  (arguments,) = commands.parse_command(command)
  return arguments["query"]


@pytest.mark.parametrize(
  "context", ["Get Low, Pi", 'a "b" \\ c', "é\u2028x", ""]
)
def test_the_executor_searches_for_the_context_as_it_stands(context):
  plan = rules.labelled(context, _TOOL)
  seen = prompt_reader.read_prompt(f"{_prompt()}\n{plan}")
  assert _query(plan) == seen.context


@pytest.mark.parametrize("context", ["none", "Ang Lee"])
def test_or_for_the_question(context):
  plan = rules.labelled(context, _TOOL, rules.QUESTION_SUB_GOAL)
  assert _query(plan) == _QUESTION


@pytest.mark.parametrize(
  ("context", "expected"),
  [
    ("Get Low", "Dillon Francis and DJ Snake"),
    ("get low (Song)", "Dillon Francis and DJ Snake"),
    ("Pi, Get Low, Pi", "Ang Lee, Dillon Francis and DJ Snake, Ang Lee"),
    # Nothing is known of it, or nothing that it links to.
    ("Nowhere", "Nowhere"),
    ("Mission", "Mission"),
  ],
)
def test_or_for_what_a_page_in_the_memory_links_to(context, expected):
  memory = _MEMORY.replace("Verdict", "Pi: A film by Ang Lee.\nVerdict")
  plan = rules.labelled(context, _TOOL, rules.LINKS_SUB_GOAL)
  assert _query(plan, _prompt(memory)) == expected


def test_the_verifier_goes_on_and_the_generator_names_the_pages():
  assert rules.verify("", _context()).endswith("Conclusion: CONTINUE")
  text = rules.generate(_prompt(_MEMORY), _context())
  assert text.endswith("<answer>Get Low (song); Mission</answer>")
  assert "<answer>nothing</answer>" in rules.generate(_prompt(), _context())


def _random_decisions(prompt, count=300):
  rng = random.Random(0)
  return [
    parsing.parse_decision(
      random_strategy.random_plan(prompt, rng, [_TOOL]), _SPECS
    )
    for _ in range(count)
  ]


def test_random_plans_are_readable_and_copy_from_the_prompt():
  decisions = _random_decisions(_prompt(_MEMORY))
  goals = collections.Counter(decision.sub_goal for decision in decisions)
  assert set(goals) == set(rules.SUB_GOALS)
  assert min(goals.values()) > 0.15 * len(decisions)
  contexts = {decision.context for decision in decisions}
  assert any(", " in context for context in contexts)
  single = {name for context in contexts for name in context.split(", ")}
  assert single == {
    "none",
    *("Get Low", "Life of Pi"),  # of the question
    *("Get Low (song)", "Mission"),  # titles
  }


def test_the_question_is_seldom_searched_again():
  asked = f"none | {rules.QUESTION_SUB_GOAL}"
  memory = _MEMORY.replace("Get Low | find pages", asked)
  goals = collections.Counter(
    decision.sub_goal for decision in _random_decisions(_prompt(memory))
  )
  assert 0 < goals[rules.QUESTION_SUB_GOAL] < 0.1 * goals.total()


def test_without_a_name_the_question_is_searched():
  for decision in _random_decisions(_prompt(question="who is it?"), 20):
    assert decision.context == rules.NO_CONTEXT
    assert decision.sub_goal == rules.QUESTION_SUB_GOAL


def test_tool_names_are_read_from_compact_prompts():
  assert prompt_reader.tool_names(_prompt()) == ["Python_Coder_Tool", _TOOL]
  assert prompt_reader.tool_names("Question: x") == []
