"""The TFDS dataset: exact, written once, never half, without TensorFlow."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from agentflow_jax.tasks import sources
from agentflow_jax.tasks.worldfacts import builder, questions, split

_PREPARE = (
  "import sys; from agentflow_jax.tasks.worldfacts import builder; "
  "builder.prepare(sys.argv[1])"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp("data")
  builder.prepare(directory)
  return directory


def _tree(directory):
  return {
    path: path.stat().st_mtime_ns
    for path in sorted(pathlib.Path(directory).rglob("*"))
  }


@pytest.mark.parametrize("split_name", split.SPLITS)
def test_what_is_read_is_what_was_asked(data_dir, split_name):
  source = sources.open_source("worldfacts", data_dir, split_name)
  read = tuple(source[index] for index in range(len(source)))
  assert read == questions.tasks(split_name)
  assert source[5] == questions.tasks(split_name)[5]


def test_splits_have_their_names():
  assert (sources.TRAIN, sources.HELD_OUT) == (split.TRAIN, split.HELD_OUT)


def test_preparing_again_writes_nothing(data_dir):
  before = _tree(data_dir)
  dataset = builder.prepare(data_dir)
  assert dataset.is_prepared()
  assert _tree(data_dir) == before


def test_other_questions_get_another_folder(data_dir, monkeypatch, tmp_path):
  """Data of older facts must not be read as these."""
  few = {name: questions.tasks(name)[:3] for name in split.SPLITS}
  monkeypatch.setattr(questions, "tasks", few.__getitem__)
  source = sources.open_source("worldfacts", data_dir, "train")
  assert len(source) == 3
  monkeypatch.undo()
  assert len(sources.open_source("worldfacts", data_dir, "train")) == sum(
    questions.COUNTS["train"].values()
  )


def test_preparing_says_nothing_on_stdout(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", _PREPARE, str(tmp_path)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == ""


def test_processes_that_prepare_at_once_agree(tmp_path):
  running = [
    subprocess.Popen(
      [sys.executable, "-c", _PREPARE, str(tmp_path)],
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(3)
  ]
  for process in running:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
  assert len(sources.open_source("worldfacts", tmp_path, "train")) == sum(
    questions.COUNTS["train"].values()
  )


def test_a_lost_race_is_won_by_the_other(tmp_path, monkeypatch):
  """The rename onto a directory that another process just filled."""

  def lose(self):
    monkeypatch.undo()
    builder.prepare(tmp_path)
    raise OSError("Directory not empty")

  monkeypatch.setattr(builder.Worldfacts, "download_and_prepare", lose)
  assert builder.prepare(tmp_path).is_prepared()


def test_a_disk_that_can_not_be_written_is_an_error(tmp_path, monkeypatch):
  def fail(self):
    raise OSError("No space left on device")

  monkeypatch.setattr(builder.Worldfacts, "download_and_prepare", fail)
  with pytest.raises(OSError, match="No space left"):
    builder.prepare(tmp_path)


def test_a_killed_process_leaves_nothing_that_is_read(tmp_path):
  """Killed while the files are being written; the next one starts over."""
  script = (
    "import sys, time\n"
    "from agentflow_jax.tasks.worldfacts import builder\n"
    "make = builder._record\n"
    "def slow(task):\n"
    "  print('writing', file=sys.stderr, flush=True)\n"
    "  time.sleep(0.01)\n"
    "  return make(task)\n"
    "builder._record = slow\n"
    "builder.prepare(sys.argv[1])\n"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", script, str(tmp_path)],
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stderr is not None
  deadline = time.monotonic() + 120
  while "writing" not in process.stderr.readline():
    assert time.monotonic() < deadline
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  assert not list(tmp_path.rglob("dataset_info.json"))
  source = sources.open_source("worldfacts", tmp_path, "train")
  assert source[0] == questions.tasks("train")[0]
  assert len(source) == sum(questions.COUNTS["train"].values())


@pytest.mark.parametrize(
  "module",
  ["sources", "order", "worldfacts.random_strategy", "worldfacts.renaming"],
)
def test_tasks_run_without_jax_and_tensorflow(module, tmp_path):
  script = (
    "import sys\n"
    f"import agentflow_jax.tasks.{module} as module\n"
    "assert 'tensorflow_datasets' not in sys.modules, 'not lazy'\n"
    "if hasattr(module, 'open_source'):\n"
    "  source = module.open_source('worldfacts', sys.argv[1], 'held_out')\n"
    "  assert source[299].id\n"
    "if hasattr(module, 'TaskOrder'):\n"
    "  module.TaskOrder(10, seed=0, batch_size=3).indices(0, 9)\n"
    "bad = {'jax', 'tensorflow', 'torch', 'transformers'} & set(sys.modules)\n"
    "assert not bad, bad\n"
  )
  subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
