"""Wikipedia_Search_Tool: passages from a local BM25 index.

Flow: query -> cache, or the index -> one line `Title: text` per passage, best
first. It searches a saved index only; nothing is fetched and no engine asked.
"""

import asyncio
import collections
import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bm25_index
from agentflow_jax.tools import text as text_lib

# The members of a group ask much the same things.
_CACHED_QUERIES = 4096
# Below this a search is faster than handing it to a thread; above it, it would
# keep the event loop from every other episode.
_INLINE_PASSAGES = 5000

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

  def __init__(self, index_dir: str | os.PathLike[str], *, top_k: int = 3):
    """Opens the index.

    Args:
      index_dir: what `bm25_index.build` wrote.
      top_k: passages per query, from 1.

    Raises:
      UserError: the index is missing or damaged.
      ConfigError: `top_k` is below 1.
    """
    if top_k < 1:
      raise errors.ConfigError(
        f"tools.search_top_k is {top_k}, it must be at least 1"
      )
    self._index = bm25_index.Bm25Index.open(index_dir)
    self._top_k = top_k
    self._cache: collections.OrderedDict[str, tool_lib.ToolResult] = (
      collections.OrderedDict()
    )

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return SPEC

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Searches; a query that shares no word with any passage is NO_RESULT.

    Raises:
      ToolHostError: the index can no longer be read.
    """
    del context  # a search draws nothing at random
    started_s = time.perf_counter()
    query = text_lib.query_of(arguments)
    if isinstance(query, tool_lib.ToolResult):
      return query
    result = self._cache.get(query)
    if result is None:
      if len(self._index) <= _INLINE_PASSAGES:
        result = self._search(query)
      else:
        result = await asyncio.to_thread(self._search, query)
      self._cache[query] = result
      if len(self._cache) > _CACHED_QUERIES:
        self._cache.popitem(last=False)
    else:
      self._cache.move_to_end(query)
    return dataclasses.replace(
      result, duration_s=time.perf_counter() - started_s
    )

  def _search(self, query: str) -> tool_lib.ToolResult:
    try:
      hits = self._index.search(query, self._top_k)
    except (OSError, ValueError, LookupError) as error:
      raise errors.ToolHostError(
        f"the search index can not be read any more: {error}"
      ) from error
    if not hits:
      return tool_lib.ToolResult(
        output="no passage matches", error=tool_lib.ToolErrorKind.NO_RESULT
      )
    return tool_lib.ToolResult(output="\n".join(_line(hit) for hit in hits))

  async def check(self) -> None:
    """Finds a passage of the index by its own words.

    Raises:
      ToolHostError: the index does not find it.
    """
    texts = (
      f"{passage.title} {passage.text}"
      for passage in map(self._index.passage, range(len(self._index)))
    )
    text = next(text for text in texts if bm25_index.words(text))
    if not self._search(text).ok:
      raise errors.ToolHostError("the search index does not find its passages")

  async def aclose(self) -> None:
    """Nothing to release: the index is mapped memory."""


def _line(hit: bm25_index.Hit) -> str:
  title = " ".join(hit.passage.title.split())
  return f"{title}: {' '.join(hit.passage.text.split())}"
