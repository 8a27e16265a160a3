"""Google_Search_Tool: web search through the service the config names.

Flow: query -> one request to the service (tools/search_services.py) -> its
answer, and one numbered line per result.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import search_services
from agentflow_jax.tools import text as text_lib

_MAX_QUERY_CHARS = 2000
_MAX_RESULT_CHARS = 4000
_CHECK_S = 60.0

SPEC = tool_lib.ToolSpec(
  name="Google_Search_Tool",
  aliases=("google_search", "Ground_Google_Search_Tool"),
  description="Searches the web and returns the best results with their text.",
  inputs=text_lib.query_schema("What to search for, as one would type it."),
  output='str: an answer if there is one, then lines "[n] title: text"',
  demos=(
    (
      'execution = tool.execute(query="capital of Laos population 2024")',
      "Find a current fact.",
    ),
  ),
  limitations=(
    "Results are snippets; they may be outdated or wrong.",
    "It does not open the pages it finds.",
  ),
  best_practices=(
    "Use it for facts that change or are not in an encyclopedia.",
    "Search for one thing at a time.",
  ),
)


class GoogleSearch:
  """Web search as a core Tool.

  Example: `await tool.execute({"query": "Laos"}, context)` gives
  `ToolResult(output="[1] Laos (https://...): A country ...")`.
  """

  def __init__(self, service: search_services.SearchService, *, top_k: int = 3):
    """Searches with `service` and shows `top_k` results at most."""
    self._service = service
    self._top_k = top_k

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return SPEC

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Searches; nothing found is NO_RESULT.

    Raises:
      ToolHostError: the service failed (retryable by the caller).
    """
    started_s = time.perf_counter()
    result = await self._answer(arguments, context)
    return dataclasses.replace(
      result, duration_s=time.perf_counter() - started_s
    )

  async def _answer(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    query = text_lib.query_of(arguments)
    if isinstance(query, tool_lib.ToolResult):
      return query
    if len(query) > _MAX_QUERY_CHARS:
      return tool_lib.ToolResult(
        output=f"the query is longer than {_MAX_QUERY_CHARS} characters",
        error=tool_lib.ToolErrorKind.INVALID_ARGUMENTS,
      )
    found = await self._service.search(query, self._top_k, context.deadline)
    if not found:
      return tool_lib.ToolResult(
        output="nothing was found", error=tool_lib.ToolErrorKind.NO_RESULT
      )
    return tool_lib.ToolResult(output="\n".join(_lines(found)))

  async def check(self) -> None:
    """Searches once.

    Raises:
      ToolHostError: the service does not answer.
      DeadlineExceededError: not within a minute.
    """
    deadline = deadline_lib.Deadline.after(_CHECK_S)
    await deadline_lib.within(
      self._service.search("Wikipedia", 1, deadline),
      deadline,
      "the search's check",
    )

  async def aclose(self) -> None:
    """Nothing to release: no connection outlives a call."""


def _lines(found: Sequence[search_services.Found]) -> list[str]:
  lines, number = [], 0
  for result in found:
    text = text_lib.one_line(result.text, _MAX_RESULT_CHARS)
    if not result.title and not result.url:  # the service's own answer
      lines.append(text)
      continue
    number += 1
    title = text_lib.one_line(result.title, 200)
    where = f" ({text_lib.one_line(result.url, 500)})" if result.url else ""
    lines.append(f"[{number}] {title}{where}: {text}".removesuffix(": "))
  return lines
