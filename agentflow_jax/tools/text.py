"""Small text helpers of the tools: one argument check, one way to cut.

Everything here treats its input as hostile data: nothing is interpreted.
"""

from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import tool as tool_lib

# The least `cut_middle` can cut to: the marker and a bit on both sides.
MIN_CUT_CHARS = 80
_MARKER_CHARS = 40  # room for the marker, whatever the number in it


def query_of(arguments: Mapping[str, Any]) -> str | tool_lib.ToolResult:
  """The stripped `query` argument, or the error to hand back.

  The agent checks arguments against the tool's schema before it calls; this is
  for direct callers, and for the blank query no schema refuses.
  """
  query = arguments.get("query")
  if set(arguments) != {"query"} or not isinstance(query, str):
    return tool_lib.ToolResult(
      output="exactly one argument is needed: query, a string",
      error=tool_lib.ToolErrorKind.INVALID_ARGUMENTS,
    )
  if not query.strip():
    return tool_lib.ToolResult(
      output="the query is empty",
      error=tool_lib.ToolErrorKind.INVALID_ARGUMENTS,
    )
  return query.strip()


def query_schema(description: str) -> dict[str, Any]:
  """JSON schema of a tool that takes exactly one string called `query`."""
  return {
    "type": "object",
    "properties": {"query": {"type": "string", "description": description}},
    "required": ["query"],
    "additionalProperties": False,
  }


def cut_middle(text: str, max_chars: int) -> tuple[str, int]:
  """Cuts the middle out of a long text.

  Args:
    text: any text.
    max_chars: longest text returned, marker included; from MIN_CUT_CHARS.

  Returns:
    The text, with a marker that tells how many characters are gone where they
    were, and that number (0 when nothing was cut).
  """
  if max_chars < MIN_CUT_CHARS:
    raise ValueError(f"max_chars is {max_chars}, need {MIN_CUT_CHARS}")
  if len(text) <= max_chars:
    return text, 0
  kept = max_chars - _MARKER_CHARS
  head = (kept + 1) // 2
  tail = kept // 2
  cut = len(text) - kept
  return f"{text[:head]}\n[{cut} characters cut]\n{text[-tail:]}", cut


def one_line(text: str, max_chars: int) -> str:
  """`text` on one line, runs of whitespace collapsed, the end cut off.

  Only the first part of a huge text is looked at.
  """
  line = " ".join(text[: 4 * max_chars].split())
  if len(line) > max_chars or len(text) > 4 * max_chars:
    return line[: max_chars - 3] + "..."
  return line
