"""Passages of Wikipedia, or any MediaWiki, through its API.

Flow: query -> titles found by the wiki's own search -> plain text of the best
pages -> passages -> ranked against the query -> the best, as from an index.
"""

import asyncio
from collections.abc import Sequence

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.tools import bm25_index, service
from agentflow_jax.tools import passages as passages_lib

# Pages read per query; the search is good, its first hits matter.
_PAGES = 4
_MAX_QUERY_CHARS = 300  # the API's own limit


class MediaWikiSearch:
  """Implements `search_index.SearchIndex` over the API.

  Args:
    url: of api.php.
    ranker: orders the passages of the pages found.

  Example: `await MediaWikiSearch(url, ranker).search("kip of Laos", 3)`.
  """

  def __init__(self, url: str, ranker: passages_lib.Ranker):
    self._service = service.Service("the MediaWiki API", url)
    self._ranker = ranker

  async def search(
    self,
    query: str,
    top_k: int,
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> Sequence[bm25_index.Hit]:
    """The best passages of the pages found; none if nothing is found.

    Raises:
      ToolHostError: the API failed.
    """
    ids = await self._find(query, deadline)
    pages = await asyncio.gather(*(self._read(page, deadline) for page in ids))
    found = [
      bm25_index.Passage(id=f"{page}-{number}", title=title, text=text)
      for page, (title, body) in zip(ids, pages, strict=True)
      for number, text in enumerate(passages_lib.chunk(body))
    ][: passages_lib.MAX_CHUNKS]
    if not found:
      return []
    order = await self._ranker.rank(
      query, [f"{p.title} {p.text}" for p in found], top_k, deadline
    )
    return [
      bm25_index.Hit(passage=found[index], score=1.0 / (rank + 1))
      for rank, index in enumerate(order)
    ]

  async def _find(
    self, query: str, deadline: deadline_lib.Deadline
  ) -> list[str]:
    answer = await self._service.get(
      {
        **{"action": "query", "format": "json", "formatversion": "2"},
        **{"list": "search", "srlimit": str(_PAGES), "srprop": ""},
        "srsearch": query[:_MAX_QUERY_CHARS],
      },
      deadline,
    )
    try:
      return [str(int(hit["pageid"])) for hit in answer["query"]["search"]]
    except (LookupError, TypeError, ValueError) as error:
      raise self._service.malformed(error) from error

  async def _read(
    self, page: str, deadline: deadline_lib.Deadline
  ) -> tuple[str, str]:
    """Title and plain text; the API gives whole texts one page at a time."""
    answer = await self._service.get(
      {
        **{"action": "query", "format": "json", "formatversion": "2"},
        **{"prop": "extracts", "explaintext": "1", "pageids": page},
      },
      deadline,
    )
    try:
      (found,) = answer["query"]["pages"]
      return str(found["title"]), str(found.get("extract", ""))
    except (LookupError, TypeError, ValueError) as error:
      raise self._service.malformed(error) from error

  async def check(self) -> None:
    """Searches once.

    Raises:
      ToolHostError: the API does not answer.
    """
    await self._find("Wikipedia", deadline_lib.NEVER)
