"""The random strategy's choices, and the renaming of its traces."""

import collections
import functools
import random
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.agent import parsing, prompts
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks.worldfacts import (
  names,
  operations,
  pages,
  random_strategy,
  relations,
  renaming,
  stems,
)
from agentflow_jax.tools import base_generator, python_coder, wikipedia_search

_SPECS = (wikipedia_search.SPEC, python_coder.SPEC, base_generator.SPEC)
_TOOLS = [spec.name for spec in _SPECS]
_SEARCH, _PYTHON, _GENERALIST = _TOOLS
_QUESTION = "What is the currency of the country whose capital is Vientiane?"
_MEMORY = (
  "Turn 1: Wikipedia_Search_Tool | Vientiane | find the country of West "
  "Virginia\nResult: Vientiane: Vientiane is the national capital of Laos.\n"
  "Verdict: CONTINUE\n"
)


def _prompt(question=_QUESTION, memory=_MEMORY, turn=1):
  return prompts.planner(
    question=question,
    specs=_SPECS,
    memory=memory,
    turn=turn,
    max_turns=5,
    style="compact",
  )[-1].content


def _plans(count=2000, prompt=None, **settings):
  rng = random.Random(3)
  strategy = random_strategy.StrategySettings(**settings)
  found = []
  for _ in range(count):
    text = random_strategy.random_plan(
      prompt or _prompt(), rng, _TOOLS, strategy
    )
    decision = parsing.parse_decision(text, _SPECS)
    assert isinstance(decision, trajectory_lib.Decision), text
    assert parsing.render_decision(decision) == text
    found.append(decision)
  return found


def _share(plans, condition):
  return sum(map(condition, plans)) / len(plans)


def _kind(plan):
  if plan.sub_goal.startswith("find the "):
    return _SEARCH
  if plan.sub_goal in operations.SUB_GOALS.values():
    return _PYTHON
  assert plan.sub_goal == "answer the question"
  return _GENERALIST


def test_tools_are_drawn_by_weight():
  even = collections.Counter(plan.tool_name for plan in _plans())
  assert all(abs(even[tool] / 2000 - 1 / 3) < 0.04 for tool in _TOOLS), even
  plans = _plans(search_weight=6.0, python_weight=2.0, generalist_weight=0.0)
  counts = collections.Counter(plan.tool_name for plan in plans)
  assert counts[_GENERALIST] == 0
  assert abs(counts[_SEARCH] / 2000 - 0.75) < 0.04


def test_the_sub_goal_fits_the_tool_mostly():
  plans = _plans()
  share = _share(plans, lambda plan: _kind(plan) == plan.tool_name)
  assert abs(share - 0.9) < 0.03
  misfits = [plan for plan in plans if _kind(plan) != plan.tool_name]
  pairs = {(plan.tool_name, _kind(plan)) for plan in misfits}
  assert len(pairs) == 6
  always = _plans(200, kind_match=1.0)
  assert _share(always, lambda plan: _kind(plan) == plan.tool_name) == 1
  never = _plans(200, kind_match=0.0)
  assert _share(never, lambda plan: _kind(plan) == plan.tool_name) == 0


def test_contexts_are_the_names_in_question_and_results():
  """Not those of earlier plans: West Virginia is no result."""
  counts = collections.Counter(plan.context for plan in _plans(next_name=0.0))
  assert set(counts) == {"Vientiane", "Laos"}
  assert abs(counts["Laos"] / counts.total() - 0.5) < 0.04


def test_the_next_name_nobody_searched_is_preferred():
  """Vientiane was searched for in turn 1."""
  counts = collections.Counter(plan.context for plan in _plans())
  assert abs(counts["Laos"] / counts.total() - (0.95 + 0.05 / 2)) < 0.04
  counts = collections.Counter(plan.context for plan in _plans(next_name=1.0))
  assert set(counts) == {"Laos"}
  first = collections.Counter(
    plan.context for plan in _plans(next_name=1.0, prompt=_prompt(memory=""))
  )
  assert set(first) == {"Vientiane"}


def test_every_tool_has_a_name_for_context():
  """One that only searches had would make "none" the likeliest context."""
  plans = _plans(500)
  for tool in _TOOLS:
    contexts = {plan.context for plan in plans if plan.tool_name == tool}
    assert contexts == {"Vientiane", "Laos"}


def test_a_prompt_without_names_gives_no_context():
  plans = _plans(50, prompt=_prompt("Who am I?", ""))
  assert {plan.context for plan in plans} == {"none"}


def test_attributes_come_from_the_question_half_of_the_time():
  phrases = len(set(relations.PHRASES.values()))
  plans = [plan for plan in _plans(6000) if _kind(plan) == _SEARCH]
  asked = ("find the currency", "find the country")
  share = _share(plans, lambda plan: plan.sub_goal in asked)
  assert abs(share - (0.5 + 0.5 * 2 / phrases)) < 0.05
  assert len({plan.sub_goal for plan in plans}) == phrases
  only = _plans(200, question_attribute=1.0, kind_match=1.0)
  goals = {plan.sub_goal for plan in only if plan.tool_name == _SEARCH}
  assert goals == set(asked)


def test_operations_are_drawn_evenly():
  plans = [plan for plan in _plans(6000) if _kind(plan) == _PYTHON]
  counts = collections.Counter(plan.sub_goal for plan in plans)
  assert counts.keys() == set(operations.SUB_GOALS.values())
  assert all(abs(c / len(plans) - 1 / 3) < 0.05 for c in counts.values())


def test_the_operation_comes_from_the_question_half_of_the_time():
  prompt = _prompt("What is the sum of the atomic numbers of Tin and Gold?", "")
  plans = [p for p in _plans(6000, prompt=prompt) if _kind(p) == _PYTHON]
  share = _share(plans, lambda plan: plan.sub_goal == "add the two numbers")
  assert abs(share - (0.5 + 0.5 / 3)) < 0.05
  assert len({plan.sub_goal for plan in plans}) == 3


def test_the_same_draws_give_the_same_plans():
  assert _plans(50) == _plans(50)


def test_it_works_on_names_that_have_no_page():
  finder = names.NameFinder(["Zembla"])
  text = random_strategy.random_plan(
    _prompt("What is the currency of Zembla?", ""),
    random.Random(0),
    [_SEARCH],
    random_strategy.StrategySettings(kind_match=1.0, question_attribute=1.0),
    finder,
  )
  assert text == (
    "Context: Zembla\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool"
  )


@pytest.mark.parametrize(
  ("question", "memory", "plan"),
  [
    (_QUESTION, "", ("Vientiane", "find the country", _SEARCH)),
    (_QUESTION, _MEMORY, ("Laos", "find the currency", _SEARCH)),
    (
      "How many more protons does an atom of Gold have than one of Tin?",
      "Turn 1: Wikipedia_Search_Tool | Gold | x\nResult: Gold: Its atomic "
      "number is 79.\nVerdict: CONTINUE\nTurn 2: Wikipedia_Search_Tool | Tin "
      "| x\nResult: Tin: Its atomic number is 50.\nVerdict: CONTINUE\n",
      ("none", "subtract the smaller number from the larger", _PYTHON),
    ),
    ("Who am I?", "", ("Who am I?", "answer the question", _SEARCH)),
  ],
)
def test_the_oracle_takes_the_next_step(question, memory, plan):
  decision = parsing.parse_decision(
    random_strategy.oracle_plan(_prompt(question, memory)), _SPECS
  )
  assert isinstance(decision, trajectory_lib.Decision)
  assert (decision.context, decision.sub_goal, decision.tool_name) == plan


def test_names_are_whole_words_the_longest_first():
  finder = names.known_names()
  text = (
    "Is the continent of West Virginia, Tin-foil or Nigeria? New York's "
    "Mount Fujis, Fahrenheit 4511, mali and (Mali)."
  )
  assert finder.find(text) == [
    "West Virginia",
    "Tin",
    "Nigeria",
    "New York",
    "Mali",
  ]
  nested = names.NameFinder(["New", "New York", "New York City"])
  assert nested.find("New York Citys of New York") == ["New York"]
  for title in pages.titles():
    assert finder.find(f"x {title}, {title}.") == [title]


def test_a_text_is_cut_into_names_and_what_is_between():
  finder = names.NameFinder(["New York", "York"])
  assert finder.cut("York: in New York") == (
    "",
    "York",
    ": in ",
    "New York",
    "",
  )
  assert finder.cut("Yorkshire") == ("Yorkshire",)


def test_a_name_without_a_word_is_refused():
  with pytest.raises(ValueError, match="must start with a word"):
    names.NameFinder(["Laos", "-"])


_maker = functools.lru_cache(lambda: stems.NameMaker(pages.titles()))


def _make(rng, old):
  """As many words as the old name has."""
  return " ".join(_maker().word(rng) for _ in old.split())


def _cut(texts):
  return [names.known_names().cut(text) for text in texts]


def test_renaming_is_consistent_over_all_texts(rng):
  texts = [
    "Compare Virginia, West Virginia and Fahrenheit 451.",
    "West Virginia: joined 1863. Turn 12 of 15",
    "Context: Virginia",
  ]
  first, second, third = renaming.rename(_cut(texts), rng, _make)
  match = re.fullmatch(r"Compare (.+), (.+) and (.+)\.", first)
  assert match
  virginia, west, book = match.groups()
  assert second == f"{west}: joined 1863. Turn 12 of 15"
  assert third == f"Context: {virginia}"
  assert len({virginia, west, book}) == 3
  assert len(west.split()) == 2
  assert not {virginia, west, book} & set(pages.titles())


def test_renaming_numbers(rng):
  texts = [
    "Turn 10: Python | none\nResult: 1863 and 7 of 1863, 50\nTurn 12 of 15",
    "Fahrenheit 451 in 1863",
  ]
  first, second = renaming.rename(_cut(texts), rng, _make, numbers=True)
  match = re.fullmatch(
    r"Turn 10: Python \| none\nResult: (\d{4}) and 7 of \1, (\d\d)\n"
    r"Turn 12 of 15",
    first,
  )
  assert match and match[1] != "1863"
  assert re.fullmatch(rf"[A-Z]\w+ [A-Z]\w+ in {match[1]}", second)


def test_made_up_names_are_not_renamed_again(rng):
  """One pass: a new name may be another's old one only by `make_name`."""
  swap = {"Laos": "Mali", "Mali": "Chad"}
  with pytest.raises(ValueError, match="no new name for 'Laos'"):
    renaming.rename(_cut(["Laos, Mali"]), rng, lambda rng, old: swap[old])
  renamed = renaming.rename(
    _cut(["Laos, Laos"]), rng, lambda rng, old: swap[old]
  )
  assert renamed == ["Mali, Mali"]


def test_renaming_has_its_own_seed():
  texts = ["Laos and Mali"]
  one, same, other = (
    renaming.rename(_cut(texts), random.Random(seed), _make)
    for seed in (1, 1, 2)
  )
  assert one == same != other


@hypothesis.given(
  pieces=st.lists(
    st.one_of(
      st.sampled_from(pages.titles()),
      st.sampled_from(["the", ", ", "Turn 1 of 4\n", "12", ": ", "x"]),
    ),
    max_size=12,
  ),
  seed=st.integers(0, 99),
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_renaming_keeps_what_is_between_names(pieces, seed):
  text = " ".join(pieces)
  finder = names.known_names()
  (renamed,) = renaming.rename([finder.cut(text)], random.Random(seed), _make)
  kept = [text[b:c] for b, c in _gaps(text, finder)]
  pattern = "(.+?)".join(map(re.escape, kept))
  match = re.fullmatch(pattern, renamed, re.DOTALL)
  assert match
  old = [name for _, _, name in finder.spans(text)]
  assert len(match.groups()) == len(old)


def _gaps(text, finder):
  """Where `text` has no name."""
  end = 0
  for start, stop, _ in finder.spans(text):
    yield end, start
    end = stop
  yield end, len(text)
