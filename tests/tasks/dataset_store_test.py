"""Datasets on disk: the round trip, refusals, and launch/prepare_data.py."""

import json
import pathlib
import subprocess
import sys

import pytest

from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks import sources
from agentflow_jax.tasks.datasets import checking, store

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def _tasks(count, question="Who is {}?"):
  return [
    task_lib.Task(
      id=f"quiz/{n}",
      question=question.format(n),
      answers=("A", f"\u00e9{n}"),
      data_source="quiz",
      scorer="multiple_choice" if n % 2 else "qa_match",
      family="odd" if n % 2 else "",
      options=("x", "A") if n % 2 else (),
      evidence=("X: One", "Y:") if n % 3 else (),
    )
    for n in range(count)
  ]


def _checked(tasks, bad=(), attachments=0):
  return checking.Checked(
    tasks=tasks, bad=list(bad), places={}, attachments=attachments
  )


def test_what_is_written_is_read_back_in_order(tmp_path):
  tasks = _tasks(30)
  bad = checking.BadRow(place="f:3", reason="empty")
  about = store.write(tmp_path, "quiz", _checked(tasks, [bad]), source="f")
  assert (about["questions"], about["quarantined"]) == (30, 1)
  source = sources.open_source("tfds:quiz", tmp_path, "train")
  assert [source[i] for i in range(len(source))] == tasks
  assert sources.scorers_of(source) == {"multiple_choice", "qa_match"}
  folder = store.directory(tmp_path, "quiz")
  kept = json.loads((folder / "quarantine.jsonl").read_text())
  assert kept == {"place": "f:3", "reason": "empty"}
  # Others are not replaced by accident.
  with pytest.raises(errors.UserError, match="other questions.*--overwrite"):
    store.write(tmp_path, "quiz", _checked(_tasks(5)), source="g")
  store.write(tmp_path, "quiz", _checked(_tasks(5)), source="g", overwrite=True)
  assert len(sources.open_source("tfds:quiz", tmp_path, "train")) == 5
  assert not list(folder.parent.glob(".*"))


def test_the_same_again_is_no_work_but_bad_rows_are_always_the_last(tmp_path):
  tasks = _tasks(30)
  folder = store.directory(tmp_path, "quiz")

  def write(*bad, source="f", attachments=0):
    checked = _checked(tasks, bad, attachments)
    about = store.write(tmp_path, "quiz", checked, source=source)
    assert store.read_about(tmp_path, "quiz") == about
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in lines] == [
      row.place for row in bad
    ]
    assert len(lines) == about["quarantined"]
    read = sources.open_source("tfds:quiz", tmp_path, "train")
    assert [read[i] for i in range(len(read))] == tasks
    return about, folder.stat().st_ino

  one, other = (checking.BadRow(place=f"f:{n}", reason="x") for n in (3, 9))
  first = write(one)
  assert write(one) == first
  # As many, but others; then more, none, another file, and left out rows.
  assert write(other)[1] != first[1]
  assert write(one, other)[0]["quarantined"] == 2
  assert write()[0]["quarantined"] == 0
  assert write(source="g")[0]["source"] == "g"
  note = "1 row needs an attachment and is left out"
  assert write(source="g", attachments=1)[0]["left_out"] == note
  read = sources.open_source("tfds:quiz", tmp_path, "train")
  assert sources.left_out_of(read) == 1
  store.write(tmp_path, "more", _checked(tasks, (), 3), source="h")
  mixed = "mix:tfds:quiz@1,tfds:more@1"
  read = sources.open_source(mixed, tmp_path, "train")
  assert sources.left_out_of(read) == 4
  (folder / "quarantine.jsonl").unlink()
  write(source="g", attachments=1)
  assert not list(folder.parent.glob(".*"))


def test_a_preparation_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
  tasks, bad = _tasks(3), checking.BadRow(place="f:3", reason="x")
  about = store.write(tmp_path, "quiz", _checked(tasks), source="f")

  def fail(*args, **kwargs):
    raise OSError("disk full")

  monkeypatch.setattr(store.os, "rename", fail)
  with pytest.raises(errors.UserError, match="can not write .*disk full"):
    store.write(tmp_path, "quiz", _checked(tasks, [bad]), source="f")
  assert store.read_about(tmp_path, "quiz") == about
  folder = store.directory(tmp_path, "quiz")
  assert (folder / "quarantine.jsonl").read_text() == ""


def test_a_missing_dataset_says_how_to_make_it(tmp_path):
  for name, flags in (
    ("nq_open", "--dataset=nq_open --source"),
    ("quiz", "--dataset=... --name=quiz --source"),
  ):
    with pytest.raises(errors.UserError) as caught:
      sources.open_source(f"tfds:{name}", tmp_path, "train")
    assert f"prepare_data.py {flags}" in str(caught.value)


def _prepare(tmp_path, *arguments):
  return subprocess.run(
    [
      sys.executable,
      str(_LAUNCH / "prepare_data.py"),
      f"--data_dir={tmp_path}/data",
      *arguments,
    ],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_the_launch_script_leaves_held_out_questions_out(tmp_path):
  rows = [
    {"prompt": f"What is {n} plus {n}?", "gold": 2 * n} for n in range(200)
  ]
  lines = [json.dumps(row) for row in rows]
  (tmp_path / "q.jsonl").write_text("\n".join([*lines, "{"]) + "\n")
  held = {"id": "h", "question": "what is 7 PLUS 7", "answers": ["14"]}
  (tmp_path / "h.jsonl").write_text(json.dumps(held) + "\n")
  done = _prepare(
    tmp_path,
    *("--dataset=custom", "--name=sums", f"--source={tmp_path}/q.jsonl"),
    *("--columns=question=prompt,answers=gold", "--scorer=math"),
    f"--held_out=jsonl:{tmp_path}/h.jsonl",
  )
  assert done.returncode == 0, done.stderr
  assert "tfds:sums: 199 questions, 2 rows quarantined" in done.stdout
  source = sources.open_source("tfds:sums", tmp_path / "data", "train")
  assert "What is 7 plus 7?" not in {source[i].question for i in range(199)}
  kept = (
    store.directory(tmp_path / "data", "sums") / "quarantine.jsonl"
  ).read_text()
  assert f"{tmp_path}/q.jsonl:201" in kept
  assert f'"{tmp_path}/q.jsonl:8", "reason": "sums/' in kept
  assert "is equal to h" in kept


@pytest.mark.slow
def test_mistakes_are_one_line(tmp_path):
  (tmp_path / "q.jsonl").write_text('{"a": 1}\n')
  for arguments, reason in (
    (["--dataset=gsm8k"], "1 of 1 rows are bad"),
    (["--dataset=custom"], "needs a --name"),
    (["--dataset=gsm8k", "--name=A B"], "lower-case"),
  ):
    done = _prepare(tmp_path, f"--source={tmp_path}/q.jsonl", *arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.startswith("error: ")
