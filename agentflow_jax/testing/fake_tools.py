"""Fake tools: one per way a tool can behave, for tests of what calls tools.

Each takes `query: string`, counts its calls in `calls`, and keeps the
contexts it was called with in `contexts`.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib

QUERY_SCHEMA = {
  "type": "object",
  "properties": {"query": {"type": "string", "description": "what to ask"}},
  "required": ["query"],
}


class FakeTool:
  """Base of the fakes: metadata and counting; `answer` is the behaviour."""

  def __init__(self, name: str, aliases: tuple[str, ...] = ()):
    self._spec = tool_lib.ToolSpec(
      name=name,
      aliases=aliases,
      description="Answers as its class says.",
      inputs=QUERY_SCHEMA,
      output="str: an answer",
    )
    self.calls: list[dict[str, Any]] = []
    self.contexts: list[engine_lib.CallContext] = []

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return self._spec

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    self.calls.append(dict(arguments))
    self.contexts.append(context)
    return await self.answer(arguments["query"])

  async def answer(self, query: str) -> tool_lib.ToolResult:
    raise NotImplementedError


class EchoTool(FakeTool):
  """Gives the query back behind `prefix`."""

  def __init__(
    self,
    name: str = "Echo_Tool",
    aliases: tuple[str, ...] = (),
    prefix: str = "",
  ):
    super().__init__(name, aliases)
    self._prefix = prefix

  async def answer(self, query: str) -> tool_lib.ToolResult:
    return tool_lib.ToolResult(output=self._prefix + query)


class HangingTool(FakeTool):
  """Never answers; with `stubborn` it swallows cancellation, too.

  `release()` lets stubborn calls end, so that a test leaves nothing behind.
  """

  def __init__(self, name: str = "Hanging_Tool", stubborn: bool = False):
    super().__init__(name)
    self._stubborn = stubborn
    self._released = asyncio.Event()
    self.cancelled = 0

  def release(self) -> None:
    self._released.set()

  async def answer(self, query: str) -> tool_lib.ToolResult:
    while not self._released.is_set():
      try:
        await self._released.wait()
      except asyncio.CancelledError:
        self.cancelled += 1
        if not self._stubborn:
          raise
    return tool_lib.ToolResult(output="released")


class RaisingTool(FakeTool):
  """Raises `kind("broken")` on every call."""

  def __init__(
    self,
    kind: type[BaseException] = errors.ToolHostError,
    name: str = "Raising_Tool",
  ):
    super().__init__(name)
    self._kind = kind

  async def answer(self, query: str) -> tool_lib.ToolResult:
    raise self._kind("broken")


class FailingTool(FakeTool):
  """Returns a typed error, the way tools report a model's mistake."""

  def __init__(
    self,
    kind: tool_lib.ToolErrorKind = tool_lib.ToolErrorKind.EXECUTION,
    name: str = "Failing_Tool",
  ):
    super().__init__(name)
    self._kind = kind

  async def answer(self, query: str) -> tool_lib.ToolResult:
    return tool_lib.ToolResult(output=f"can not {query}", error=self._kind)


class HugeTool(FakeTool):
  """Returns `size_chars` of text: "a", then dots, then "z"."""

  def __init__(self, size_chars: int, name: str = "Huge_Tool"):
    super().__init__(name)
    self._output = "a" + "." * (size_chars - 2) + "z"

  async def answer(self, query: str) -> tool_lib.ToolResult:
    return tool_lib.ToolResult(output=self._output)


class FlakyTool(FakeTool):
  """Raises ToolHostError `failures` times, then echoes."""

  def __init__(self, failures: int, name: str = "Flaky_Tool"):
    super().__init__(name)
    self._failures = failures

  async def answer(self, query: str) -> tool_lib.ToolResult:
    if len(self.calls) <= self._failures:
      raise errors.ToolHostError(f"failure {len(self.calls)}")
    return tool_lib.ToolResult(output=query)
