"""Maths in workers: bombs end in time, dead workers are replaced."""

import itertools
import signal
import subprocess
import sys
import time

import pytest
import watched_workers

from agentflow_jax.core import errors
from agentflow_jax.rewards import math_match, math_worker, worker_pool

_PROGRAM = """
import os, sys, time
print('{"ready": 1}', flush=True)
for line in sys.stdin:
  if "hang" in line: time.sleep(60)
  if "die" in line: os._exit(3)
  if "garbage" in line: print("no json", flush=True); continue
  print('{"pid": %d}' % os.getpid(), flush=True)
"""

# The limit, one look of the parent, and the kernel's rounding.
_CPU_BOUND_S = math_match.CPU_LIMIT_S + 0.3


@pytest.fixture
def pool():
  made = worker_pool.WorkerPool(
    [sys.executable, "-I", "-c", _PROGRAM], size=1, limit_s=0.5
  )
  yield made
  made.close()


def test_a_worker_is_kept_until_it_hangs_or_dies(pool):
  first = pool.ask({"do": "work"})
  assert pool.ask({"do": "work"}) == first
  for request in ("hang", "die", "garbage"):
    assert pool.ask({"do": request}) is None
    assert pool.ask({"do": "work"}) not in (None, first)


def test_a_request_that_hangs_ends_at_the_limit(pool):
  pool.ask({"do": "work"})
  started_s = time.monotonic()
  assert pool.ask({"do": "hang"}) is None
  assert time.monotonic() - started_s < 30


def test_a_request_that_uses_its_processor_time_is_not_tried_again(tmp_path):
  tries = tmp_path / "tries"
  program = f"""
import signal, sys
signal.signal(signal.SIGPROF, signal.SIG_DFL)
print('{{}}', flush=True)
for line in sys.stdin:
  open({str(tries)!r}, "a").write("x")
  signal.setitimer(signal.ITIMER_PROF, 0.1)
  while True: pass
"""
  pool = worker_pool.WorkerPool(
    [sys.executable, "-I", "-c", program], size=1, limit_s=60
  )
  assert pool.ask({}) is None
  assert tries.read_text() == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_heeds_a_timer_that_its_parent_ignores():
  """As under the TPU runtime, which ignores SIGPROF for good."""
  parent = f"""
import pathlib, signal, sys
from agentflow_jax.rewards import worker_pool
signal.signal(signal.SIGPROF, signal.SIG_IGN)
worker = worker_pool._Worker([sys.executable, "-I", {math_worker.__file__!r}])
print(pathlib.Path(f"/proc/{{worker._process.pid}}/status").read_text())
worker.kill()
"""
  status = subprocess.run(
    [sys.executable, "-c", parent], capture_output=True, text=True, check=True
  ).stdout
  masks = dict(line.split(":\t") for line in status.split("\n") if line)
  for name in ("SigIgn", "SigBlk"):
    assert not int(masks[name], 16) >> (signal.SIGPROF - 1) & 1


def test_a_program_that_does_not_start_is_infrastructure():
  for argv in ([sys.executable, "-c", "exit()"], ["/no/such/program"]):
    pool = worker_pool.WorkerPool(argv, size=1, limit_s=1)
    with pytest.raises(errors.RewardError):
      pool.ask({})


def test_a_closed_pool_refuses(pool):
  pool.close()
  with pytest.raises(errors.RewardError, match="closed"):
    pool.ask({})


def test_what_uses_its_processor_time_is_killed_from_outside():
  """Also where the program's own timer is off."""
  program = """
import sys, time
print('{}', flush=True)
for line in sys.stdin:
  while time.process_time() < 30: pass
"""
  pool = worker_pool.WorkerPool(
    [sys.executable, "-I", "-c", program], size=1, limit_s=60, cpu_limit_s=0.3
  )
  with watched_workers.watched() as watch:
    assert pool.ask({}) is None
  (ended,) = watch.ended
  assert 0.3 <= ended.cpu_s < 0.6
  assert ended.is_gone()


def _crowded(nice: int, seconds: float) -> list[str]:
  """A program on one processor with three that spin there, out of favour."""
  # Ends by itself: the one who would end it may be killed first.
  hog = (
    "import os, time\nos.sched_setaffinity(0, {0})\n"
    "until_s = time.monotonic() + 30\n"
    "while time.monotonic() < until_s: pass"
  )
  program = f"""
import os, subprocess, sys, time
os.sched_setaffinity(0, {{0}})
hogs = [subprocess.Popen([sys.executable, "-c", {hog!r}]) for _ in range(3)]
os.nice({nice})
print('{{}}', flush=True)
for line in sys.stdin:
  until_s = time.process_time() + {seconds}
  while time.process_time() < until_s: pass
  for hog in hogs: hog.kill()
  print('{{"done": 1}}', flush=True)
"""
  return [sys.executable, "-I", "-c", program]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_waiting_for_a_processor_counts_for_nothing():
  limit_s = 1.0
  pool = worker_pool.WorkerPool(
    _crowded(nice=3, seconds=0.4), size=1, limit_s=limit_s, cpu_limit_s=0.8
  )
  started_s = time.monotonic()
  assert pool.ask({}) == {"done": 1}
  assert time.monotonic() - started_s > limit_s  # or it proves nothing
  pool.close()


def test_a_worker_without_a_processor_is_a_failed_machine(monkeypatch, pool):
  pool.ask({"do": "work"})
  clock = itertools.count(step=20)
  monkeypatch.setattr(worker_pool, "_waited_s", lambda pid: next(clock))
  with (
    watched_workers.watched() as watch,
    pytest.raises(errors.RewardError, match="too busy to score"),
  ):
    pool.ask({"do": "hang"})
  assert watch.ended[0].is_gone()


_BOMBS = [
  "9^{9^{9^{9}}}",
  "(((2^{999})^{999})^{999})^{999}",
  "9**9**9**9",
  "\\sqrt{" * 40 + "2" + "}" * 40,
  "(" * 190 + "x" + ")" * 190,
  "x^{999999}-1",
  "(x+y+z+w)^{999}",
  "__import__('os').system('sleep 9')",
  "\\prod_{i=1}^{999999999} i",
  "1" * 399,
]


@pytest.mark.slow
@pytest.mark.parametrize("bomb", _BOMBS)
def test_bombs_score_zero_within_their_processor_time(bomb):
  math_match.math("2\\sqrt{2}", ("\\sqrt{8}",))  # the worker is up
  with watched_workers.watched() as watch:
    assert not math_match.math(bomb, ("3\\sqrt{2}+x",))
  assert all(cpu_s < _CPU_BOUND_S for cpu_s in watch.cpu_s)
  assert all(worker.is_gone() for worker in watch.ended)


# Names that Python's evaluation would run; none may, and the worker must have
# been asked, or the test says nothing about it.
_INJECTIONS = [
  "__import__('pathlib').Path('{path}').touch()",
  "open('{path}','w')",
  "\\text{{open('{path}','w')}}+x",
  "eval(\"open('{path}','w')\")",
  "x+exec('open(\\'{path}\\',\\'w\\')')",
  "(lambda: open('{path}','w'))()",
  "\\write18{{touch {path}}}",
  "x;open('{path}','w')",
  "`touch {path}`",
  "$(touch {path})",
]


@pytest.mark.slow
@pytest.mark.parametrize("text", _INJECTIONS)
def test_math_verify_evaluates_no_python(text, tmp_path):
  marker = tmp_path / "m"
  with watched_workers.watched() as watch:
    assert not math_match.math(text.format(path=marker), ("3\\sqrt{2}+x",))
  assert watch.cpu_s, "the worker was not asked"
  assert not marker.exists()
