"""Tool: what the executor may call, and the typed answer it gives."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Protocol

from agentflow_jax.core import engine as engine_lib


class ToolErrorKind(enum.StrEnum):
  """Why a call gave no answer.

  The first group is the model's doing: it is shown to the agent as text and
  the episode goes on. The second is infrastructure: it is retried, then the
  trajectory is masked.

  Example: a search that matches no passage is NO_RESULT, which the agent
  reads; a search server that is down is INFRASTRUCTURE, which it never sees.
  """

  UNKNOWN_TOOL = "unknown_tool"
  NO_CALL = "no_call"  # the executor wrote no readable call
  INVALID_ARGUMENTS = "invalid_arguments"
  NO_RESULT = "no_result"  # ran fine and found nothing
  EXECUTION = "execution"  # the model's code or query failed
  LIMIT = "limit"  # the model's code ran into a time/memory/output limit
  TIMEOUT = "timeout"  # the tool host did not answer in time
  INFRASTRUCTURE = "infrastructure"

  @property
  def is_infrastructure(self) -> bool:
    return self in (ToolErrorKind.TIMEOUT, ToolErrorKind.INFRASTRUCTURE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
  """What a tool offers, as the prompts show it.

  `inputs` is a JSON schema of type object; `aliases` are other names a planner
  may use. `demos` are (command, description) pairs.

  Example:
    ToolSpec(name="Wikipedia_Search_Tool", aliases=("wikipedia_search",),
             description="Finds passages.", output="str: passages",
             inputs={"type": "object", "properties": {"query":
                     {"type": "string"}}, "required": ["query"]})
  """

  name: str
  description: str
  inputs: Mapping[str, Any]
  output: str
  aliases: tuple[str, ...] = ()
  demos: tuple[tuple[str, str], ...] = ()
  limitations: tuple[str, ...] = ()
  best_practices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
  """One validated request.

  Example: `ToolCall(tool_name="T", arguments={"query": "Laos"})`.
  """

  tool_name: str  # the spec's name, already normalised
  arguments: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
  """An answer, or a typed error with a text the agent may read.

  Example: `ToolResult(output="Vientiane is the capital of Laos.")` or
  `ToolResult(output="no passage matches", error=ToolErrorKind.NO_RESULT)`.
  """

  output: str
  error: ToolErrorKind | None = None
  duration_s: float = 0.0
  truncated_chars: int = 0  # how much output was cut away

  @property
  def ok(self) -> bool:
    return self.error is None


class Tool(Protocol):
  """Something that can be called with literal keyword arguments.

  `execute` returns the model's mistakes as `ToolResult.error`.

  Example:
    result = await tool.execute({"query": "Laos capital"}, context)
    result.output  # "Vientiane is the capital of Laos."

  Raises:
    ToolHostError: the tool's own machinery failed (retryable).
    EngineError: an engine the tool uses failed (retryable).
  """

  @property
  def spec(self) -> ToolSpec: ...

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> ToolResult: ...
