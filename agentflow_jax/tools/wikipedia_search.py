"""Wikipedia_Search_Tool: passages from a saved index or a wiki's API.

Flow: query -> the index (tools/search_index.py) or the API (tools/mediawiki.py)
-> one line `Title: text` per passage, best first. No engine is asked.
"""

import time
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bm25_index, search_index
from agentflow_jax.tools import text as text_lib

SPEC = tool_lib.ToolSpec(
  name="Wikipedia_Search_Tool",
  aliases=("wikipedia_search", "Wikipedia_RAG_Search_Tool"),
  description=(
    "Finds encyclopedia passages that share words with the query; the best "
    "match comes first."
  ),
  inputs=text_lib.query_schema(
    "The name of the thing, and a few words for what you want to know of it."
  ),
  output='str: one line "Title: text" per passage',
  demos=(
    (
      'execution = tool.execute(query="Laos currency")',
      "Find an attribute of a named thing.",
    ),
    (
      'execution = tool.execute(query="Vientiane capital country")',
      "Find what a named thing belongs to.",
    ),
  ),
  limitations=(
    "It matches words, not meanings: misspelt or paraphrased names are missed.",
    "It returns passages, not answers, and only from its own collection.",
  ),
  best_practices=(
    "Search for one thing at a time and write its name in full.",
    "If a fact depends on another one, search for that one first.",
  ),
)


class WikipediaSearch:
  """The search over one index as a core Tool.

  Example: `await tool.execute({"query": "Laos currency"}, context)` gives
  `ToolResult(output="Laos: Laos is a country in Asia. ...")`.
  """

  def __init__(
    self,
    index: search_index.SearchIndex,
    *,
    top_k: int = 3,
    passage_chars: int = 0,
  ):
    """Searches `index`.

    Args:
      index: what is searched.
      top_k: passages per query, from 1.
      passage_chars: of a passage's text that are shown, whole words; 0 = all.

    Raises:
      ConfigError: `top_k` is below 1.
    """
    if top_k < 1:
      raise errors.ConfigError(
        f"tools.search_top_k is {top_k}, it must be at least 1"
      )
    self._index = index
    self._top_k = top_k
    self._passage_chars = passage_chars

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return SPEC

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Searches; if no passage matches, it is NO_RESULT.

    Raises:
      ToolHostError: the index can no longer be read, or the API failed.
    """
    started_s = time.perf_counter()
    query = text_lib.query_of(arguments)
    if isinstance(query, tool_lib.ToolResult):
      return query
    hits = await self._index.search(query, self._top_k, context.deadline)
    if not hits:
      return tool_lib.ToolResult(
        output="no passage matches", error=tool_lib.ToolErrorKind.NO_RESULT
      )
    return tool_lib.ToolResult(
      output="\n".join(_line(hit, self._passage_chars) for hit in hits),
      duration_s=time.perf_counter() - started_s,
    )

  async def check(self) -> None:
    """Searches once.

    Raises:
      ToolHostError: the index does not find its passages, or the API failed.
    """
    await self._index.check()

  async def aclose(self) -> None:
    """Nothing to release: the index is mapped memory."""


def _line(hit: bm25_index.Hit, max_chars: int) -> str:
  title = " ".join(hit.passage.title.split())
  text = " ".join(hit.passage.text.split())
  if 0 < max_chars < len(text):
    # Not within a word, unless the text is one.
    text = text[:max_chars].rpartition(" ")[0] or text[:max_chars]
  return f"{title}: {text}"
