"""Signals: the first asks, a second Ctrl-C ends the process at once."""

import os
import signal
import subprocess
import sys

import pytest

from agentflow_jax.training import stop_signal

_LOOP = """
import os, signal, sys, time
from agentflow_jax.training import stop_signal
with stop_signal.StopSignal() as stop:
  print("ready", flush=True)
  while not stop.requested:
    time.sleep(0.01)
  print("asked", flush=True)
  if sys.argv[1] == "again":
    os.kill(os.getpid(), signal.SIGTERM)
  if sys.argv[1] == "hang":
    while True:
      time.sleep(0.01)
print("saved", flush=True)
"""


def _start(how: str) -> subprocess.Popen:
  process = subprocess.Popen(
    [sys.executable, "-c", _LOOP, how],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None
  assert process.stdout.readline() == "ready\n"
  return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_loop_finish(number):
  process = _start("stop")
  process.send_signal(number)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0
  assert out == "asked\nsaved\n"
  assert err.startswith(f"{number.name}: stopping at the next safe point")


def test_a_scheduler_that_repeats_itself_changes_nothing():
  process = _start("again")
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0
  assert out == "asked\nsaved\n"
  assert err.count("stopping at") == 1


def test_a_second_interrupt_exits_130_at_once():
  process = _start("hang")
  process.send_signal(signal.SIGTERM)
  assert process.stdout is not None
  assert process.stdout.readline() == "asked\n"
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 130
  assert out == ""
  assert err.count("stopping at") == 1


def test_handlers_are_put_back():
  before = signal.getsignal(signal.SIGTERM)
  with stop_signal.StopSignal() as stop:
    assert signal.getsignal(signal.SIGTERM) != before
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
  assert signal.getsignal(signal.SIGTERM) == before


def test_check_raises_once_a_signal_came():
  with stop_signal.StopSignal() as stop:
    stop.check()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(stop_signal.Stopped):
      stop.check()
