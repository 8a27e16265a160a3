"""Runs attempts one after the other and looks what each leaves behind.

`python sandbox_runner.py KIND` reads {"limits": {...}, "programs": {name:
code}} and prints one JSON object per line: how long a program that does nothing
takes, then what came of each attempt, then what was left in the end.

A process of its own, because it becomes the parent of every process below it
that loses its own: one that forked twice and began a session can be found.
"none" is no sandbox at all, to show that such a process is found.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from agentflow_jax.core import errors
from agentflow_jax.tools import bubblewrap_sandbox, monty_sandbox
from agentflow_jax.tools import sandbox as sandbox_lib

_PR_SET_CHILD_SUBREAPER = 36
_GONE_S = 1.0  # for what was killed to be gone from the list


class _NoSandbox:
  def __init__(self, limits):
    del limits

  async def check(self):
    pass

  async def aclose(self):
    pass

  async def run(self, code):
    command = [sys.executable, "-c", code]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    return sandbox_lib.SandboxRun()


KINDS = {
  "bubblewrap": bubblewrap_sandbox.BubblewrapSandbox,
  "monty": monty_sandbox.MontySandbox,
  "none": _NoSandbox,
}
# Processes that a sandbox keeps between programs: Monty's one worker.
_KEPT = {"monty": 1}


def _parents():
  """Living processes, each with its parent."""
  found = {}
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    with contextlib.suppress(OSError):  # it has ended
      state, parent = path.read_text().rpartition(")")[2].split()[:2]
      if state not in "ZX":
        found[int(path.parent.name)] = int(parent)
  return found


def descendants():
  """Process ids below this one."""
  parents, found = _parents(), {os.getpid()}
  while more := {p for p, up in parents.items() if up in found} - found:
    found |= more
  return found - {os.getpid()}


def _left(kept):
  """Command lines of what outlived its program, which are killed now."""
  end_s = time.monotonic() + _GONE_S
  while len(found := descendants()) > kept and time.monotonic() < end_s:
    time.sleep(0.01)
  if len(found) <= kept:
    return []
  lines = []
  for pid in found:
    with contextlib.suppress(OSError):
      lines.append(pathlib.Path(f"/proc/{pid}/cmdline").read_text()[:200])
      os.kill(pid, signal.SIGKILL)
  return lines


def _say(**values):
  print(json.dumps(values), flush=True)


async def _attempt(sandbox, code):
  started_s = time.monotonic()
  run = await sandbox.run(code)
  return {
    "error": run.error,
    "shown": run.output + run.message,
    "message": run.message,
    "duration_s": run.duration_s,
    "took_s": time.monotonic() - started_s,
  }


async def main(kind, limits, programs):
  kept = _KEPT.get(kind, 0)
  try:
    sandbox = KINDS[kind](sandbox_lib.Limits(**limits, workers=1))
    await sandbox.check()
  except errors.UserError as error:
    _say(missing=str(error))
    return
  idle = [await _attempt(sandbox, "print(1)") for _ in range(3)]
  _say(startup_s=max(run["took_s"] for run in idle))
  for name, code in programs.items():
    result = await _attempt(sandbox, code)
    _say(name=name, left=_left(kept), **result)
  await sandbox.aclose()
  _say(name="", left=_left(0))


if __name__ == "__main__":
  ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
  told = json.load(sys.stdin)
  asyncio.run(main(sys.argv[1], told["limits"], told["programs"]))
