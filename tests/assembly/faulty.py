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
# What is no answer, so that somebody has to count it.
FAILING = {HANG, CRASH, BUSY, DOWN}
_TEXT = "\x00<|im_end|>{'a': [" * 4
_HUGE_TEXT = "x" * (100 * 2**20)  # one object, however often it is given
_SLOW_S = 0.02


class Faults:
  """Draws a fault for a share of all calls, and remembers where.

  `seen` counts faults by kind, `failing` those that were no answer, by whom
  they struck, and `cut` the calls of engines among them that somebody cut off;
  `blamed` has the (task id, member) whose episodes were given a bad answer.
  """

  def __init__(self, share: float, seed: int):
    self._share = share
    self._random = random.Random(seed)
    self.seen = collections.Counter()
    self.failing = collections.Counter()
    self.cut = collections.Counter()
    self.blamed = set()

  def draw(self, target: str, context: engine_lib.CallContext) -> str:
    if self._random.random() >= self._share:
      return ""
    fault = self._random.choice(FAULTS)
    self.seen[fault] += 1
    self.failing[target] += fault in FAILING
    if fault in BLAMED:
      self.blamed.add((context.task_id, context.member))
    return fault

  def engine(self, name, inner):
    return _Engine(self, name, inner)

  def break_tool(self, name, metered) -> None:
    """Lets a tool fail from now on, inside of what counts its failures."""
    # A bad answer that is given again would blame nobody.
    metered._cache_s = 0.0
    tool = metered.tool
    execute = tool.execute

    async def faulty(arguments, context):
      fault = self.draw(name, context)
      try:
        await _wait(fault)
      except asyncio.CancelledError:
        self.failing[name] += fault == SLOW  # it would have come to an end
        raise
      if fault == CRASH:
        raise RuntimeError("crashed")
      if fault in (BUSY, DOWN):
        raise errors.ToolHostError(fault)
      if fault == GARBAGE:
        return tool_lib.ToolResult(output=_TEXT)
      if fault == HUGE:
        return tool_lib.ToolResult(output=_HUGE_TEXT)
      try:
        return await execute(arguments, context)
      except BaseException:  # of the engine it asks, or cut off while it asks
        self.failing[name] += 1
        raise

    tool.execute = faulty


class _Engine:
  def __init__(self, faults, name, inner):
    self._faults = faults
    self._name = name
    self._inner = inner

  async def generate(self, messages, sampling, context):
    fault = self._faults.draw(self._name, context)
    try:
      await _wait(fault)
    except asyncio.CancelledError:
      self._faults.cut[self._name] += fault == HANG
      raise
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
