"""Overlap of question sets: equal, nearly equal, and different."""

from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.datasets import overlap

_LONG = (
  "Natalia sold clips to 48 of her friends in April and then she sold half as "
  "many clips in May. How many clips did Natalia sell in April and May?"
)


def _task(name, question):
  return task_lib.Task(
    id=name, question=question, answers=("a",), data_source="t"
  )


def _find(question, *held_out):
  index = overlap.OverlapIndex(
    _task(f"h{n}", text) for n, text in enumerate(held_out)
  )
  return list(index.find([_task("t", question)]))


def test_case_and_punctuation_do_not_hide_a_question():
  found = _find("WHO wrote it ??", "What?", "who wrote it")
  assert [(pair.other_id, pair.exact) for pair in found] == [("h1", True)]


def test_a_changed_word_at_the_end_is_near():
  found = _find(_LONG.replace("May?", "June?"), "Other", _LONG)
  assert found[0].other_id == "h1"
  assert 0.5 <= found[0].likeness < 1
  assert not found[0].exact


def test_other_questions_and_short_ones_do_not_overlap():
  assert not _find("Who wrote that?", "Who wrote it?", _LONG)
  assert not _find(_LONG.replace("clips", "pies"), _LONG)
  assert not _find(_LONG[:60], _LONG)
