"""Maths in workers: bombs end in time, dead workers are replaced."""

import signal
import subprocess
import sys
import time

import pytest

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
def test_bombs_score_zero_and_end_in_time(bomb):
  math_match.math("2\\sqrt{2}", ("\\sqrt{8}",))  # the worker is up
  started_s = time.monotonic()
  assert not math_match.math(bomb, ("3\\sqrt{2}+x",))
  assert time.monotonic() - started_s < math_match.LIMIT_S + 5
