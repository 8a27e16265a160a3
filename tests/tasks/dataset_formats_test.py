"""One row of each known dataset, as its publishers write it."""

import pytest

from agentflow_jax.rewards import registry
from agentflow_jax.tasks.datasets import formats

_ROWS = {
  "flow_mix": (
    {
      "id": 7,
      "question": "who sang it?",
      "chain": "",
      "result": "Ann; Bob",
      "source": "nq",
      "extra_info": {"ground_truth": "Ann; Bob", "idx": 3},
    },
    ("Ann", "Bob"),
  ),
  "nq_open": ({"question": "who?", "answer": ["A", "B"]}, ("A", "B")),
  "hotpotqa": ({"_id": "5a", "question": "Who?", "answer": "A"}, ("A",)),
  "two_wiki": ({"_id": "5b", "question": "Who?", "answer": "A"}, ("A",)),
  "musique": (
    {
      "id": "2hop",
      "question": "Who?",
      "answer": "A",
      "answer_aliases": ["B"],
    },
    ("A", "B"),
  ),
  "popqa": (
    {"id": 1, "question": "Who?", "possible_answers": '["A", "B"]'},
    ("A", "B"),
  ),
  "triviaqa": (
    {
      "question_id": "tc_1",
      "question": "Who?",
      "answer": {"value": "A", "aliases": ["A", "B"]},
    },
    ("A", "B"),
  ),
  "bamboogle": ({"Question": "Who?", "Answer": "A"}, ("A",)),
  "gsm8k": (
    {"question": "How many?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"},
    ("1002",),
  ),
  "math": (
    {"problem": "Find $x$.", "solution": "So $\\boxed{\\frac{1}{2}}$."},
    ("\\frac{1}{2}",),
  ),
  "aime": ({"ID": "2024-I-1", "Problem": "Find it.", "Answer": 33}, ("33",)),
  "amc": ({"id": 0, "problem": "Find it.", "answer": 142.0}, ("142",)),
  "game24": ({"Rank": 1, "Puzzles": "1 1 4 6"}, ("1 1 4 6",)),
  "gpqa": (
    {
      "Question": "Which?",
      "Correct Answer": "right",
      "Incorrect Answer 1": "x",
      "Incorrect Answer 2": "y",
      "Incorrect Answer 3": "z",
    },
    None,
  ),
  "medqa": (
    {
      "question": "Which?",
      "options": {"A": "x", "B": "right", "C": "y", "D": "z"},
      "answer": "right",
      "answer_idx": "B",
    },
    ("B", "right"),
  ),
  "gaia": (
    {"task_id": "c6", "Question": "How?", "Level": 2, "Final answer": "17"},
    ("17",),
  ),
}


def test_there_is_a_row_for_every_dataset():
  assert set(_ROWS) == set(formats.FORMATS)


@pytest.mark.parametrize("name", _ROWS)
def test_a_row_becomes_a_task_that_its_scorer_understands(name):
  row, answers = _ROWS[name]
  task = formats.FORMATS[name](row, name)
  assert task.id.startswith(f"{name}/")
  if answers is not None:
    assert task.answers == answers
  score = registry.SCORERS[task.scorer]
  right = "1*4*6*1" if name == "game24" else task.answers[0]
  assert score(right, task) == 1
  assert score("nothing of the kind", task) == 0
  if task.options:
    assert task.options[ord(task.answers[0]) - ord("A")] == "right"
    assert "\nA. " in task.question


def test_an_interval_is_one_answer_and_a_list_of_texts_is_several():
  for name in ("math", "nq_open"):
    read = formats.FORMATS[name]
    for text, answers in (
      ("[-3,2]", ("[-3,2]",)),
      ("[0, 25]", ("[0, 25]",)),
      ('["a", "b"]', ("a", "b")),
      ("[]", ("[]",)),
      ("[a", ("[a",)),
    ):
      assert read({"question": "?", "answer": text}, name).answers == answers


def test_options_may_be_json_text():
  row, answers = _ROWS["medqa"]
  options = '["x", "right", "y", "z"]'
  task = formats.FORMATS["medqa"]({**row, "options": options}, "medqa")
  assert task.answers == answers
  with pytest.raises(ValueError, match="no list of options"):
    formats.FORMATS["medqa"]({**row, "options": "[x"}, "medqa")


def test_ids_without_a_column_come_from_the_question():
  read = formats.FORMATS["nq_open"]
  one = read({"question": "who?", "answer": "A"}, "nq")
  assert one.id == read({"question": "who?", "answer": "B"}, "nq").id
  assert one.id != read({"question": "what?", "answer": "A"}, "nq").id


@pytest.mark.parametrize(
  ("name", "change", "reason"),
  [
    ("gsm8k", {"answer": "2"}, "no final line"),
    ("math", {"solution": "2"}, "no .boxed"),
    ("game24", {"Puzzles": "1 2 3"}, "four numbers"),
    ("medqa", {"answer": "w"}, "none of the options"),
    ("medqa", {"options": {"A": "right", "B": "right"}}, "two options"),
    ("gaia", {"file_name": "a.xlsx"}, "comes with a file"),
    ("flow_mix", {"source": "web"}, "not nq or mathhard"),
  ],
)
def test_what_does_not_fit_is_refused_with_a_reason(name, change, reason):
  row, _ = _ROWS[name]
  with pytest.raises(ValueError, match=reason) as caught:
    formats.FORMATS[name]({**row, **change}, name)
  needs = isinstance(caught.value, formats.NeedsAttachmentError)
  assert needs == (name == "gaia")


def test_a_column_map_reads_any_file():
  columns = formats.ColumnMap.parse(
    "question=prompt, answers=gold,family=kind", "math"
  )
  task = formats.custom(columns)(
    {"id": 3, "prompt": "1+1?", "gold": 2, "kind": "sums"}, "quiz"
  )
  assert (task.id, task.question, task.answers) == ("quiz/3", "1+1?", ("2",))
  assert (task.family, task.scorer) == ("sums", "math")
  for text in ("question", "prompt=question", "question="):
    with pytest.raises(ValueError, match="FIELD=COLUMN"):
      formats.ColumnMap.parse(text, "math")
