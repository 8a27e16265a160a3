"""Benchmark files: where they are found, and what is refused in them."""

import json

import pytest

from agentflow_jax.core import errors
from agentflow_jax.tasks import benchmarks

_SUFFIX = (
  "When ready, output the final answer enclosed in <answer> and </answer> "
  "tags. Do not generate any content after the </answer> tag."
)


def _rows(count):
  return [
    {"pid": 0, "query": f"Who is {n}?{_SUFFIX}", "answer": [f"N{n}"]}
    for n in range(count)
  ]


def test_agentflows_own_layout_is_read(tmp_path):
  folder = tmp_path / "bamboogle" / "data"
  folder.mkdir(parents=True)
  (folder / "data.json").write_text(json.dumps(_rows(125)))
  tasks = benchmarks.load("bamboogle", tmp_path)
  assert [task.id for task in tasks[:2]] == ["bamboogle/0000", "bamboogle/0001"]
  assert tasks[7].question == "Who is 7?"
  assert tasks[7].answers == ("N7",)


def test_the_papers_rows_are_the_first_ones(tmp_path):
  rows = [{**row, "_row": 2 * n} for n, row in enumerate(_rows(100))]
  (tmp_path / "2wiki.json").write_text(json.dumps(rows))
  assert len(benchmarks.load("2wiki", tmp_path)) == 100
  assert len(benchmarks.load("2wiki", tmp_path, paper_rows=True)) == 50


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"answer": []}, "'answer' is empty"),
    ({"_row": 0}, "row 0 is there twice"),
    ({"query": "who is 0"}, "one question with different"),
  ],
)
def test_a_benchmark_with_a_bad_row_is_no_benchmark(tmp_path, change, reason):
  rows = _rows(3)
  rows[2] |= change
  (tmp_path / "musique.json").write_text(json.dumps(rows))
  with pytest.raises(errors.UserError, match=reason):
    benchmarks.load("musique", tmp_path)


def _gaia(count, attachments):
  """As published; the first of every four rows speaks of a file."""
  return [
    {
      "task_id": f"t{n}",
      "Question": f"How many are {n}?",
      "Level": 1 + n % 3,
      "Final answer": str(n),
      "file_name": f"t{n}.xlsx" if n % 4 == 0 and n < 4 * attachments else "",
      "Annotator Metadata": {"Steps": "1. Count"},
    }
    for n in range(count)
  ]


@pytest.mark.parametrize("paper_rows", [False, True])
def test_gaia_is_its_questions_without_attachments(
  tmp_path, caplog, paper_rows
):
  rows = _gaia(165, 38)
  lines = [json.dumps(row) for row in rows]
  (tmp_path / "gaia.jsonl").write_text("\n".join(lines) + "\n")
  with caplog.at_level("WARNING"):
    found = benchmarks.load_counted("gaia", tmp_path, paper_rows=paper_rows)
  tasks = found.tasks
  assert found.left_out == 38
  assert [(task.question, task.answers) for task in tasks] == [
    (row["Question"], (row["Final answer"],))
    for row in rows
    if not row["file_name"]
  ]
  assert [task.id for task in tasks] == [f"gaia/{n:04d}" for n in range(127)]
  assert [record.getMessage() for record in caplog.records] == [
    f"{tmp_path}/gaia.jsonl: 38 rows need an attachment and are left out; "
    "scores are of the other 127 questions"
  ]
  # All of them: then there is no benchmark.
  (tmp_path / "gaia.jsonl").write_text(lines[0])
  with pytest.raises(errors.UserError, match="has no questions"):
    benchmarks.load("gaia", tmp_path)


def test_a_missing_file_says_what_was_looked_for(tmp_path):
  with pytest.raises(errors.UserError, match="gaia.jsonl.gz.*gaia/data"):
    benchmarks.load("gaia", tmp_path)
  with pytest.raises(errors.UserError, match="no benchmark 'x'; known are"):
    benchmarks.load("x", tmp_path)
