"""Processes and threads are counted wherever they hang in the tree."""

import subprocess
import sys

from agentflow_jax.tools import process_tree

# 1 + 3 threads, two children, one of which has two threads and a child, and one
# of a thread: 10.
_FAMILY = """
import os, sys, threading, time
def rest(): time.sleep(600)
def threads(count):
  for _ in range(count): threading.Thread(target=rest, daemon=True).start()
read, write = os.pipe()
if os.fork() == 0:
  threads(2)
  if os.fork():
    os.write(write, b".")
  rest()
if os.fork() == 0: rest()
def parent():
  if os.fork(): os.write(write, b".")
  rest()
threads(2)
threading.Thread(target=parent, daemon=True).start()
os.read(read, 1)
os.read(read, 1)
print("ready", flush=True)
sys.stdin.read()
os.killpg(0, 9)
"""


def test_threads_children_and_theirs_are_counted():
  with subprocess.Popen(
    [sys.executable, "-c", _FAMILY],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    start_new_session=True,
  ) as process:
    process.stdout.readline()
    assert process_tree.tasks(process.pid, 100) == 10
    assert process_tree.tasks(process.pid, 10) == 10
    assert 3 < process_tree.tasks(process.pid, 3) <= 10
    process.stdin.close()
  assert process_tree.tasks(process.pid, 100) == 0
