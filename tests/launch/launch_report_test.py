"""launch/report.py as a user runs it."""

import json
import pathlib
import subprocess
import sys

import pytest

_SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "report.py"


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """Two small runs, an empty folder, and a run of garbage."""
  for name, right in (("a", 1.0), ("b", 0.0)):
    run = tmp_path / name
    (run / "rollouts" / "train").mkdir(parents=True)
    row = {"iteration": 1, "step": 1, "reward": right, "entropy": 0.5}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    record = {"task": {"id": "t", "question": f"Why {name}?"}, "reward": right}
    path = run / "rollouts" / "train" / "iteration_000001.jsonl"
    path.write_text(json.dumps(record) + "\n")
  (tmp_path / "empty").mkdir()
  (tmp_path / "garbage").mkdir()
  (tmp_path / "garbage" / "metrics.jsonl").write_bytes(b"\x00\xff\n")
  return tmp_path


def _run(folder, *arguments):
  return subprocess.run(
    [sys.executable, str(_SCRIPT), *arguments],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )


def test_one_run_and_two(folder):
  done = _run(folder, "a")
  assert done.returncode == 0, done.stderr
  assert done.stdout == "report: a/report.html\n"
  text = (folder / "a" / "report.html").read_text(encoding="utf-8")
  assert "Why a?" in text
  done = _run(folder, "a", "b", "--out=new/both.html", "--max_trajectories=1")
  assert done.returncode == 0, done.stderr
  text = (folder / "new" / "both.html").read_text(encoding="utf-8")
  assert "Showing 1 of 2 recorded trajectories" in text


def test_help_names_the_flags(folder):
  done = _run(folder, "--help")
  assert done.returncode == 0
  for flag in ("--out", "--max_trajectories=2000"):
    assert flag in done.stdout


@pytest.mark.parametrize(
  ("arguments", "needle"),
  [
    ([], "the RUN_DIR is missing; see --help"),
    (["none"], "no run directory at none"),
    (["empty"], "empty holds no readable metrics.jsonl"),
    (["garbage"], "metrics.jsonl: unreadable and left out: 1"),
    (["a", "b"], "several runs need --out=FILE"),
    (["a", "--max_trajectories=-1"], "max_trajectories"),
  ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, arguments, needle):
  done = _run(folder, *arguments)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.startswith("error: ")
  assert needle in done.stderr
  assert done.stderr.count("\n") == 1
