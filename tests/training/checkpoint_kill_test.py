"""kill -9 at every stage of a save: what loads afterwards is whole."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from agentflow_jax.training import checkpointing

_SIZE = 2**20

# Saves step 1, then dies while it saves step 2 at the stage argv[2].
_CHILD = """
import os, pathlib, shutil, signal, sys, threading, time
import jax.numpy as jnp
from agentflow_jax.training import array_store, checkpointing, run_dir

def die(*unused, **also_unused):
  os.kill(os.getpid(), signal.SIGKILL)

def state(step):
  return {f"w{i}": jnp.full(SIZE, step + i, jnp.float32) for i in range(8)}

stage = sys.argv[2]
saved = checkpointing.Checkpointer(sys.argv[1], keep_last=1, keep_best=True)
saved.save(1, state(1), {"position": 1}, wait=True)
if stage == "made":
  array_store._barrier = die
elif stage == "written":
  array_store._commit = die
elif stage == "commit":
  run_dir.os.replace = die
elif stage == "complete":
  checkpointing.Checkpointer._prune = die
elif stage == "delete":
  shutil.rmtree = die
elif stage == "deleting":
  def half(directory):
    files = [p for p in pathlib.Path(directory).rglob("*") if p.is_file()]
    for path in files[: len(files) // 2]:
      path.unlink()
    die()
  shutil.rmtree = half
else:  # seconds after the save began
  threading.Timer(float(stage), die).start()
saved.save(2, state(2), {"position": 2})
if stage == "returned":
  die()
saved.wait()
time.sleep(60)
""".replace("SIZE", str(_SIZE)).replace(
  "else:  # seconds", 'elif stage != "returned":  # seconds'
)

_STAGES = {
  "made": {1},
  "returned": {1, 2},
  "0.001": {1, 2},
  "0.02": {1, 2},
  "0.06": {1, 2},
  "0.2": {1, 2},
  "written": {1},
  "commit": {1},
  "complete": {2},
  "delete": {2},
  "deleting": {2},
}


@pytest.mark.slow
def test_kill_9_at_any_stage_leaves_a_whole_checkpoint(tmp_path):
  children = {
    stage: subprocess.Popen(
      [sys.executable, "-c", _CHILD, str(tmp_path / stage), stage],
      stderr=subprocess.PIPE,
      text=True,
    )
    for stage in _STAGES
  }
  for stage, child in children.items():
    _, log = child.communicate()
    assert child.returncode == -signal.SIGKILL, (stage, log)
    _check(tmp_path / stage, _STAGES[stage])


def _check(path: pathlib.Path, expected: set[int]) -> None:
  saved = checkpointing.Checkpointer(path, keep_last=1, keep_best=True)
  step = saved.latest_step()
  assert step in expected, path
  target = {f"w{i}": np.empty(_SIZE, np.float32) for i in range(8)}
  state, extra = saved.restore(target)
  assert extra == {"position": step}
  for i in range(8):
    assert (state[f"w{i}"] == step + i).all()
  # The run goes on where it was, and leaves no debris.
  saved.save(step + 1, {"w": np.zeros(1)}, {}, wait=True)
  saved.close()
  assert saved.all_steps() == [step + 1]
  assert [child.name for child in path.iterdir()] == [f"step_{step + 1:08d}"]
