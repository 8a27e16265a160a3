"""launch/evaluate.py on named benchmarks: real files, and AgentFlow's rows."""

import gzip
import json
import pathlib

import evaluated
import pytest

pytestmark = pytest.mark.slow

_BENCH = pathlib.Path(__file__).parents[2] / "../shared/data/agentflow_bench"


def _lines(name):
  path = _BENCH / f"{name}.jsonl.gz"
  if not path.exists():
    pytest.skip(f"../shared/data/agentflow_bench/{path.name} is not there")
  with gzip.open(path, "rt", encoding="utf-8") as file:
    return [json.loads(line) for line in file]


def _evaluate(folder, *flags):
  return evaluated.run(
    folder, "evaluate.py", "--solver=oracle", "--out=out", *flags
  )


def _ids(folder, name):
  text = (folder / "out" / name / "trajectories.jsonl").read_text()
  return sorted(json.loads(line)["task"]["id"] for line in text.splitlines())


def test_only_the_papers_rows_of_a_real_file(tmp_path):
  """Ten real rows: some before the paper's last row, some behind it."""
  rows = _lines("2wiki")
  inside = [row for row in rows if row["_row"] < 100]
  few = inside[-6:] + [row for row in rows if row["_row"] >= 100][:4]
  (tmp_path / "bench").mkdir()
  with gzip.open(tmp_path / "bench/2wiki.jsonl.gz", "wt") as file:
    file.writelines(json.dumps(row) + "\n" for row in few)
  flags = ("--benchmark=2wiki", f"--benchmark_dir={tmp_path / 'bench'}")

  done = _evaluate(tmp_path, *flags, "--paper_rows")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("2wiki: 100.0 % [100.0, 100.0] of 6 questions")
  places = [f"2wiki/{row['_row']:04d}" for row in few]
  assert _ids(tmp_path, "2wiki") == places[:6]
  report = (tmp_path / "out/report.md").read_text()
  assert "| ours (measured) | 100.0 |" in report
  assert "| AgentFlow-7B, Flow-GRPO (quoted) | 77.2 |" in report

  # All rows are other questions: not the same evaluation.
  done = _evaluate(tmp_path, *flags)
  assert done.returncode == 2
  assert "other settings (questions" in done.stderr.splitlines()[-1]
  done = _evaluate(tmp_path, *flags, "--out=all")
  assert done.stdout.startswith("2wiki: 100.0 % [100.0, 100.0] of 10 questions")


def test_a_whole_real_file_by_its_name(tmp_path):
  count = sum(row["_row"] < 30 for row in _lines("aime24"))
  done = _evaluate(
    tmp_path,
    *("--benchmark=aime24,bamboogle", f"--benchmark_dir={_BENCH}"),
    "--paper_rows",
  )
  assert done.returncode == 0, done.stderr
  first, second, _ = done.stdout.splitlines()
  assert first.startswith(f"aime24: 100.0 % [100.0, 100.0] of {count} ")
  assert second.startswith("bamboogle: 100.0 % ")


def test_a_benchmark_needs_its_folder_and_file(tmp_path):
  done = _evaluate(tmp_path, "--benchmark=2wiki")
  assert done.returncode == 2
  assert "2wiki needs --benchmark_dir" in done.stderr.splitlines()[-1]
  done = _evaluate(tmp_path, "--benchmark=2wiki", f"--benchmark_dir={tmp_path}")
  assert done.returncode == 2
  assert f"{tmp_path} has no 2wiki: need " in done.stderr.splitlines()[-1]


def test_gated_files_in_agentflows_layout(tmp_path):
  """NAME/data/data.json; GPQA and GAIA may not be passed on, so made up."""
  gpqa = [
    {
      "pid": n,
      "query": f"Which one is {n}?",
      "image": None,
      "choices": [f"{letter}. {n} {letter}" for letter in "ABCD"],
      "answer": f"{right}. {n} {right}",
      "answer_idx": right,
    }
    for n, right in enumerate("BDA")
  ]
  gaia = [
    {"pid": n, "query": f"How many are {n}?", "answer": answer, "Level": 1}
    for n, answer in enumerate(("17", "Rome, Oslo", "a b"))
  ]
  gaia += [{**gaia[0], "query": "What is in it?", "file_name": "t.xlsx"}] * 2
  for name, rows in (("gpqa", gpqa), ("gaia", gaia)):
    path = tmp_path / name / "data" / "data.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
  done = _evaluate(
    tmp_path, "--benchmark=gpqa,gaia", f"--benchmark_dir={tmp_path}"
  )
  assert done.returncode == 0, done.stderr
  assert "has 3 questions, the published file 300" in done.stderr
  results = json.loads((tmp_path / "out/results.json").read_text())
  for name in ("gpqa", "gaia"):
    assert (results[name]["questions"], results[name]["accuracy"]) == (3, 1.0)
  assert [results[name]["left_out"] for name in ("gpqa", "gaia")] == [0, 2]
  for name in ("report.md", "report.html"):
    text = (tmp_path / "out" / name).read_text()
    assert "are left out: 2; the denominator is 3." in text


def test_a_prepared_dataset_counts_what_it_left_out(tmp_path):
  rows = [
    {"task_id": f"t{n}", "Question": f"How many are {n}?", "Final answer": "17"}
    | {"Level": 1, "file_name": "t.xlsx" if n > 2 else ""}
    for n in range(5)
  ]
  source = tmp_path / "metadata.jsonl"
  source.write_text("".join(json.dumps(row) + "\n" for row in rows))
  done = evaluated.run(
    tmp_path,
    "prepare_data.py",
    *("--dataset=gaia", f"--source={source}", "--data_dir=data"),
  )
  assert done.returncode == 0, done.stderr
  done = _evaluate(
    tmp_path, "--benchmark=tfds:gaia", "--config.tasks.data_dir=data"
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "out/results.json").read_text())
  (found,) = results.values()
  assert (found["questions"], found["left_out"]) == (3, 2)
