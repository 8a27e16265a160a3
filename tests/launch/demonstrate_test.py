"""launch/demonstrate.py as its help shows it: a teacher who is right."""

import json
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[2]


def test_the_quickstarts_teacher_is_always_right(tmp_path):
  """Its memory is small: counted in bytes, it would be cut too early."""
  out = tmp_path / "demonstrations.jsonl"
  done = subprocess.run(
    [
      *(sys.executable, "launch/demonstrate.py"),
      "--config=configs/quickstart.py",
      f"--config.tasks.data_dir={tmp_path / 'data'}",
      f"--out={out}",
      "--questions=12",
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  last = done.stdout.splitlines()[-1]
  assert last.startswith("DEMONSTRATIONS episodes=12 right=12 ")
  assert len([json.loads(line) for line in out.open()]) == 12
