"""Phrases: what a plan is made of, and never a name."""

from agentflow_jax.tasks.worldfacts import names
from agentflow_jax.training import worldfacts_lesson


def test_a_plan_is_a_handful_of_tokens(small_world):
  """A name and four more tokens, unless its sub-goal was too rare here."""
  encode = small_world.tokenizer.encode
  plans = [plan for trace in small_world.traces for plan in trace.plans]
  others = sorted(
    len(encode(plan)) - len(encode(plan.split("\n")[0][len("Context:") :]))
    for plan in plans
  )
  assert others[len(others) // 2] <= 4, others
  for text in (*plans, *small_world.traces[0].prompts):
    assert small_world.tokenizer.decode(encode(text)) == text


def test_phrases_hold_no_name_and_cut_no_word(small_world):
  found = worldfacts_lesson.common_phrases(small_world.traces)
  assert len(found) == len(set(found)) > 30
  finder = names.known_names()
  assert not [phrase for phrase in found if finder.find(phrase)]
  assert all(phrase[0] in "\n " for phrase in found[3:])
  assert found[1:3] == ["user", "assistant"]
  assert "\nTool Name: Wikipedia_Search_Tool" in found
  assert " Its currency is the" in found


def test_rare_lines_are_no_phrases(small_world):
  found = worldfacts_lesson.common_phrases(small_world.traces)
  questions = {
    line
    for trace in small_world.traces
    for line in trace.prompts[0].split("\n")
    if line.startswith("Question: ")
  }
  assert len(questions) > 10
  assert not questions & {phrase.strip() for phrase in found}


def test_the_order_is_that_of_no_hash(small_world):
  backwards = small_world.traces[::-1]
  found = worldfacts_lesson.common_phrases(small_world.traces)
  assert worldfacts_lesson.common_phrases(backwards) == found
