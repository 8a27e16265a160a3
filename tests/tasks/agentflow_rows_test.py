"""GPQA and GAIA as AgentFlow's data.json has them, not as published."""

import pytest

from agentflow_jax.rewards import registry
from agentflow_jax.tasks.datasets import formats

_GPQA = {
  "pid": 3,
  "query": "Which particle has no charge?",
  "image": None,
  "choices": ["A. electron", "B. neutron", "C. proton", "D. muon"],
  "answer": "B. neutron",
  "answer_idx": "B",
}
_GAIA = {
  "pid": "7",
  "query": "How many are there?",
  "image": None,
  "answer": "1,234",
  "Level": 2,
  "file_name": "",
  "Annotator Metadata": {"Steps": "1. Count"},
}


def _score(answer, task):
  return registry.SCORERS[task.scorer](answer, task)


@pytest.mark.parametrize(
  "change",
  [
    {},
    {"choices": ["electron", "neutron", "proton", "muon"]},
    {"answer": "neutron"},
    {"answer": "B"},
    {"answer_idx": 1},
    {
      "query": "Which particle has no charge?\nA. electron\nB. neutron\n"
      "C. proton\nD. muon"
    },
  ],
)
def test_gpqa_has_choices_and_an_answer_with_its_letter(change):
  task = formats.FORMATS["gpqa"]({**_GPQA, **change}, "gpqa")
  assert task.question == (
    "Which particle has no charge?\nA. electron\nB. neutron\nC. proton\nD. muon"
  )
  assert task.options == ("electron", "neutron", "proton", "muon")
  assert task.answers == ("B", "neutron")
  for right in ("B", "(B)", "B. neutron", "neutron", "The answer is B."):
    assert _score(right, task) == 1, right
  for wrong in ("A", "A. neutron", "electron", "A. electron", "", "B or C"):
    assert _score(wrong, task) == 0, wrong


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"answer": "B. photon"}, "none of the options"),
    ({"answer": "E"}, "none of the options"),
    ({"choices": ["A. electron"]}, "no list of options"),
    ({"choices": ["A. x", "", "C. y", "D. z"]}, "empty"),
  ],
)
def test_a_gpqa_row_that_does_not_fit_is_refused(change, reason):
  with pytest.raises(ValueError, match=reason):
    formats.FORMATS["gpqa"]({**_GPQA, **change}, "gpqa")


def test_gaia_has_a_query_and_one_answer():
  task = formats.FORMATS["gaia"](_GAIA, "gaia")
  assert task.question == "How many are there?"
  assert task.answers == ("1,234",)
  assert task.family == "level 2"
  assert not task.options
  assert _score("1,234", task) == 1
  assert _score("1,235", task) == 0
  assert _score("", task) == 0


def test_a_gaia_answer_with_commas_is_one_answer():
  task = formats.FORMATS["gaia"]({**_GAIA, "answer": "Rome, Oslo"}, "gaia")
  assert task.answers == ("Rome, Oslo",)
  assert _score("rome,oslo", task) == 1
  assert _score("Rome", task) == 0


def test_a_gaia_row_with_a_file_needs_it():
  with pytest.raises(formats.NeedsAttachmentError):
    formats.FORMATS["gaia"]({**_GAIA, "file_name": "a.xlsx"}, "gaia")
