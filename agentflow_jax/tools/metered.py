"""MeteredTool: counts, times and (where it makes sense) caches a tool's calls.

Flow: call -> cache, or the tool itself -> result. Only what depends on nothing
but the arguments is cached, and only answers and "nothing found" are.
"""

import collections
import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import hosted

# The members of a group ask much the same things.
CACHED_CALLS = 4096
CACHED_CHARS = 16 << 20


class MeteredTool:
  """A hosted tool around another one.

  Args:
    tool: does the work.
    cache_s: for how long an answer may be given again; 0 is not at all.

  Example: `MeteredTool(tool, cache_s=60).metrics()` is `{"calls": 0, ...}`.
  """

  def __init__(self, tool: hosted.HostedTool, cache_s: float = 0.0):
    self.tool = tool
    self._cache_s = cache_s
    self._cache: collections.OrderedDict[
      str, tuple[float, tool_lib.ToolResult]
    ] = collections.OrderedDict()
    self._cached_chars = 0
    self._counts: collections.Counter[str] = collections.Counter()
    self._seconds = 0.0

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return self.tool.spec

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """calls, cached, failed (raised), seconds, error/KIND."""
    found: dict[str, float] = {
      "calls": self._counts["calls"],
      "cached": self._counts["cached"],
      "failed": self._counts["failed"],
      "seconds": self._seconds,
    }
    for kind in tool_lib.ToolErrorKind:
      if count := self._counts[f"error/{kind}"]:
        found[f"error/{kind}"] = count
    if reset:
      self._counts.clear()
      self._seconds = 0.0
    return found

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """The tool's result; raises what the tool raises."""
    started_s = time.perf_counter()
    self._counts["calls"] += 1
    result = None
    try:
      result = await self._answer(arguments, context)
      return dataclasses.replace(
        result, duration_s=time.perf_counter() - started_s
      )
    finally:
      self._seconds += time.perf_counter() - started_s
      if result is None:
        self._counts["failed"] += 1
      elif result.error is not None:
        self._counts[f"error/{result.error}"] += 1

  async def _answer(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    if self._cache_s <= 0:
      return await self.tool.execute(arguments, context)
    key = json.dumps(arguments, sort_keys=True, default=repr)
    if (cached := self._cached(key)) is not None:
      self._counts["cached"] += 1
      return cached
    result = await self.tool.execute(arguments, context)
    if result.error is None or result.error == tool_lib.ToolErrorKind.NO_RESULT:
      self._keep(key, result)
    return result

  def _cached(self, key: str) -> tool_lib.ToolResult | None:
    until_s, result = self._cache.get(key, (0.0, None))
    if result is None or until_s < time.monotonic():
      return None
    self._cache.move_to_end(key)
    return result

  def _keep(self, key: str, result: tool_lib.ToolResult) -> None:
    self._drop(key)
    self._cache[key] = (time.monotonic() + self._cache_s, result)
    self._cached_chars += len(key) + len(result.output)
    while len(self._cache) > CACHED_CALLS or self._cached_chars > CACHED_CHARS:
      self._drop(next(iter(self._cache)))

  def _drop(self, key: str) -> None:
    if key in self._cache:
      _, result = self._cache.pop(key)
      self._cached_chars -= len(key) + len(result.output)

  async def check(self) -> None:
    """Checks the tool itself, past the cache."""
    await self.tool.check()

  async def aclose(self) -> None:
    """Closes the tool. Idempotent."""
    await self.tool.aclose()
