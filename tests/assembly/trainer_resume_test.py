"""The real training program, killed at every stage and started again.

One run from random weights to the last iteration is the oracle; its base is
the template of the others, so that each of them only takes seconds.
"""

import concurrent.futures
import json
import pathlib
import signal
import time

import numpy as np
import pytest
import short_runs

from agentflow_jax.training import array_store, checkpointing, metrics_writer

pytestmark = pytest.mark.slow

# Where the process dies in iteration 3 -> checkpoints it may go on from.
_POINTS = {
  "rollout": {1, 2},  # step 2 is saved in the background
  "learn": {2},
  "metrics": {2},
  "checkpoint_begun": {2, 3},
  "checkpoint_written": {2},
  "checkpoint_whole": {3},
}
# Times, and how requests happened to meet in the sampler and in caches.
_IS_TIME = ("time_s", "tokens_per_s", "phase_s/", "duration_s", "sampler/")
_IS_CHANCE = ("/seconds", "/cached")


def _arrays(directory: pathlib.Path) -> dict[str, np.ndarray]:
  info = array_store.read_info(directory)
  assert info is not None, directory
  targets = {
    name: np.empty(array["shape"], array["dtype"])
    for name, array in info["arrays"].items()
  }
  return array_store.restore(directory, targets)


def _steps(run_dir: pathlib.Path) -> list[int]:
  saved = checkpointing.Checkpointer(
    run_dir / "checkpoints", keep_last=1, keep_best=True
  )
  return saved.all_steps()


def _without_times(value):
  if isinstance(value, dict):
    return {
      name: _without_times(child)
      for name, child in value.items()
      if not name.startswith(_IS_TIME) and not name.endswith(_IS_CHANCE)
    }
  if isinstance(value, list):
    return [_without_times(child) for child in value]
  return value


def _records(run_dir: pathlib.Path) -> dict[str, list]:
  """Every recorded trajectory, by file."""
  return {
    str(path.relative_to(run_dir)): [
      _without_times(json.loads(line))
      for line in path.read_text(encoding="utf-8").splitlines()
    ]
    for path in sorted((run_dir / "rollouts").rglob("*.jsonl"))
  }


def _assert_equal_runs(run_dir: pathlib.Path, whole: pathlib.Path) -> None:
  """Bit for bit, but for times."""
  last = pathlib.Path("checkpoints") / f"step_{short_runs.ITERATIONS:08d}"
  found, expected = _arrays(run_dir / last), _arrays(whole / last)
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert array.tobytes() == found[name].tobytes(), name
  for read in (metrics_writer.read_metrics, metrics_writer.read_evaluations):
    # As text: nan is not equal to itself.
    assert repr(_without_times(read(run_dir))) == repr(
      _without_times(read(whole))
    )
  assert _records(run_dir) == _records(whole)


def test_the_oracle_is_worth_comparing(program):
  """It learns: every array moved, and every iteration differs."""
  whole = program.root / "whole"
  last = (program.root / "last_line").read_text()
  assert last.startswith("QUICKSTART held_out_before=")
  assert f" steps={short_runs.ITERATIONS} " in last
  lines = metrics_writer.read_metrics(whole)
  assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
  assert [line["step"] for line in lines] == [1, 2, 3, 4]
  assert len({line["grad_norm"] for line in lines}) == 4
  whens = [e["when"] for e in metrics_writer.read_evaluations(whole)]
  assert whens == ["before", "during", "after"]
  base = _arrays(whole / "base" / "params")
  last = _arrays(whole / "checkpoints" / f"step_{short_runs.ITERATIONS:08d}")
  params = {n: a for n, a in last.items() if n.startswith("params/")}
  assert params.keys() == base.keys()
  for name, array in params.items():
    assert (array != base[name]).any(), name
  assert len(_records(whole)) == 3 + short_runs.ITERATIONS


def test_a_second_run_killed_in_its_warm_start_is_the_first(program):
  """The same seed gives the same bits, from the first random weight on."""
  run_dir, whole = program.root / "again", program.root / "whole"
  status, _, err = program.run(run_dir, "warm_start")
  assert status == -signal.SIGKILL, err[-3000:]
  assert not (run_dir / "base" / "architecture.json").exists()
  program.finish(run_dir)
  found, expected = (
    _arrays(path / "base" / "params") for path in (run_dir, whole)
  )
  for name, array in expected.items():
    assert array.tobytes() == found[name].tobytes(), name
  _assert_equal_runs(run_dir, whole)


def test_kill_9_loses_nothing(program):
  """Four iterations equal two and a half, a kill, and the rest."""

  def kill_and_resume(point: str) -> pathlib.Path:
    run_dir = program.after_warm_start(point)
    status, out, err = program.run(run_dir, point)
    assert status == -signal.SIGKILL, (point, err[-3000:])
    assert out == ""
    assert max(_steps(run_dir)) in _POINTS[point], point
    program.finish(run_dir)
    return run_dir

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    resumed = list(pool.map(kill_and_resume, _POINTS))
  for run_dir in resumed:
    _assert_equal_runs(run_dir, program.root / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_the_same_command_goes_on(program, number):
  run_dir = program.after_warm_start(number.name)
  status, out, err = program.run(
    run_dir, "learn", number, training__checkpoint_every=100
  )
  assert status == 0, err[-3000:]
  assert f"{number.name}: stopping at the next safe point" in err
  assert out.splitlines() == [
    f"STOPPED; the same command resumes run_dir={run_dir}"
  ]
  assert _steps(run_dir) == [3]
  program.finish(run_dir)
  _assert_equal_runs(run_dir, program.root / "whole")


def test_a_run_dir_in_use_is_refused(program):
  run_dir = program.after_warm_start("busy")
  owner = program.start(run_dir, "learn", signal.SIGSTOP)
  metrics = run_dir / "metrics.jsonl"
  try:
    while _lines(metrics) < 2 and owner.poll() is None:
      time.sleep(0.1)
    status, out, err = program.run(run_dir)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert f"is in use by process {owner.pid} on" in err
  finally:
    while owner.poll() is None:  # it stops itself a moment after line 2
      owner.send_signal(signal.SIGCONT)
      time.sleep(0.1)
    _, err = owner.communicate()
  assert owner.returncode == 0, err[-3000:]
  _assert_equal_runs(run_dir, program.root / "whole")


def _lines(path: pathlib.Path) -> int:
  return path.read_text().count("\n") if path.exists() else 0
