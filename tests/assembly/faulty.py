"""Engines and tools that fail in seven ways, and what is left of a process."""

import asyncio
import collections
import dataclasses
import gc
import os
import pathlib
import random
import threading

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib

HANG, SLOW, CRASH, GARBAGE, HUGE, BUSY, DOWN = FAULTS = (
  "hang",
  "slow",
  "crash",
  "garbage",
  "huge",
  "429",
  "500",
)
# What a model may be blamed for: an answer came, and it was no good.
BLAMED = {GARBAGE, HUGE}
_TEXT = "\x00<|im_end|>{'a': [" * 4
_HUGE_TEXT = "x" * (100 * 2**20)  # one object, however often it is given
_SLOW_S = 0.02


class Faults:
  """Draws a fault for a share of all calls, and remembers where.

  `seen` counts faults by kind; `blamed` has the (task id, member) whose
  episodes were given a bad answer.
  """

  def __init__(self, share: float, seed: int):
    self._share = share
    self._random = random.Random(seed)
    self.seen = collections.Counter()
    self.blamed = set()

  def draw(self, context: engine_lib.CallContext) -> str:
    if self._random.random() >= self._share:
      return ""
    fault = self._random.choice(FAULTS)
    self.seen[fault] += 1
    if fault in BLAMED:
      self.blamed.add((context.task_id, context.member))
    return fault

  def engine(self, inner):
    return _Engine(self, inner)

  def break_tool(self, tool) -> None:
    """Lets `tool` fail from now on."""
    execute = tool.execute

    async def faulty(arguments, context):
      fault = self.draw(context)
      await _wait(fault)
      if fault == CRASH:
        raise RuntimeError("crashed")
      if fault in (BUSY, DOWN):
        raise errors.ToolHostError(fault)
      if fault == GARBAGE:
        return tool_lib.ToolResult(output=_TEXT)
      if fault == HUGE:
        return tool_lib.ToolResult(output=_HUGE_TEXT)
      return await execute(arguments, context)

    tool.execute = faulty


class _Engine:
  def __init__(self, faults, inner):
    self._faults = faults
    self._inner = inner

  async def generate(self, messages, sampling, context):
    fault = self._faults.draw(context)
    await _wait(fault)
    if fault == BUSY:
      raise errors.RateLimitedError("busy", retry_after_s=0.01)
    if fault in (CRASH, DOWN):
      raise errors.EngineError(fault)
    answer = await self._inner.generate(messages, sampling, context)
    if fault == GARBAGE:
      # Its ids stay, so that what a policy is blamed for can be trained on.
      return dataclasses.replace(answer, text=_TEXT)
    if fault == HUGE:
      return dataclasses.replace(answer, text=_HUGE_TEXT)
    return answer


async def _wait(fault):
  if fault == HANG:
    await asyncio.Event().wait()
  if fault == SLOW:
    await asyncio.sleep(_SLOW_S)


def left_over():
  """Threads, child processes and open files of this process."""
  gc.collect()
  children = sum(
    len(path.read_text().split())
    for path in pathlib.Path("/proc/self/task").glob("*/children")
  )
  return {
    "threads": threading.active_count(),
    "processes": children,
    "files": len(os.listdir("/proc/self/fd")),
  }


def assert_nothing_left(before):
  after = left_over()
  grown = {name: n - before[name] for name, n in after.items()}
  assert max(grown.values()) <= 0, grown
