"""The real launch/train.py with mistakes: one line, exit 2, nothing begun."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  ("argument", "words"),
  [
    ("--config.learner.lrr=1", ("learner.lrr", "nearest", "learner.lr")),
    ("--config.lerner.lr=1", ("lerner.lr", "nearest", "learner.lr")),
    ("--config.rollout.tasks=many", ("rollout.tasks", "an integer", "many")),
    ("--config.training.tensorboard=2", ("training.tensorboard",)),
    ("--config.sampler.top_p=0.5", ("sampler.top_p", "training needs")),
    (
      "--config.warm_start.enabled=0 --config.model.checkpoint=/nonexistent",
      ("/nonexistent is no model",),
    ),
    (
      "--config.warm_start.enabled=false",
      ("model.checkpoint is empty", "name a model directory"),
    ),
  ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, argument, words):
  run_dir = tmp_path / "run"
  done = subprocess.run(
    [sys.executable, "launch/train.py", "--config=configs/quickstart.py"]
    + [f"--config.run.run_dir={run_dir}", *argument.split()],
    cwd=_ROOT,
    env=os.environ | {"AGENTFLOW_HOST_SETTINGS": "0"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stdout == ""
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: ")
  for word in words:
    assert word in line
  assert not run_dir.exists()
