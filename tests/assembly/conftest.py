"""One uninterrupted run of the training program for all who compare with it."""

import os

import filelock
import pytest
import short_runs


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> short_runs.Program:
  """With a whole run in "whole", made once for all of xdist's workers."""
  root = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    root = root.parent
  made = short_runs.Program(root / "runs")
  last_line = root / "runs" / "last_line"
  with filelock.FileLock(root / "runs.lock"):
    if not last_line.exists():
      last = made.finish(made.root / "whole")
      last_line.write_text(last)
  return made
