"""A saved index of either kind behind one question: the best passages.

Flow: directory -> its manifest says BM25 or dense -> `search(query, top_k)`.
Large indexes are searched in a thread, away from the event loop.
"""

import asyncio
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Protocol

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors
from agentflow_jax.tools import bm25_index, dense_index, index_files
from agentflow_jax.tools import embeddings as embeddings_lib

# Below this a search is faster than handing it to a thread; above it, it would
# keep the event loop from every other episode.
_INLINE_PASSAGES = 5000


class SearchIndex(Protocol):
  """Finds passages."""

  async def search(
    self,
    query: str,
    top_k: int,
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> Sequence[bm25_index.Hit]:
    """The best passages, best first. Raises ToolHostError."""
    ...

  async def check(self) -> None:
    """Finds something. Raises ToolHostError."""
    ...


def open_index(
  directory: str | os.PathLike[str],
  embedder: embeddings_lib.Embedder | None = None,
) -> SearchIndex:
  """Opens what lies in `directory`.

  Args:
    directory: written by `bm25_index.build` or `dense_index.build`.
    embedder: asked for the vector of a query; a dense index needs it.

  Raises:
    UserError: the index is missing or damaged, or is dense and there is no
      embedder.
  """
  try:
    manifest = pathlib.Path(directory, index_files.MANIFEST).read_text("utf-8")
    dense = json.loads(manifest).get("kind") == dense_index.HEADER["kind"]
  except (OSError, ValueError, AttributeError):
    dense = False  # whatever is wrong, opening it as the usual kind says so
  if not dense:
    return LexicalSearch(bm25_index.Bm25Index.open(directory))
  if embedder is None:
    raise errors.UserError(
      f"index {directory} is dense: set tools.embedding_url and "
      "tools.embedding_model to what it was built with"
    )
  return DenseSearch(dense_index.DenseIndex.open(directory), embedder)


class LexicalSearch:
  """BM25 over a saved index."""

  def __init__(self, index: bm25_index.Bm25Index):
    self._index = index

  async def search(
    self,
    query: str,
    top_k: int,
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> Sequence[bm25_index.Hit]:
    """Passages that share a word with the query.

    Raises:
      ToolHostError: the index can no longer be read.
    """
    del deadline
    if len(self._index) <= _INLINE_PASSAGES:
      return self._search(query, top_k)
    return await asyncio.to_thread(self._search, query, top_k)

  def _search(self, query: str, top_k: int) -> Sequence[bm25_index.Hit]:
    try:
      return self._index.search(query, top_k)
    except (OSError, ValueError, LookupError) as error:
      raise errors.ToolHostError(
        f"the search index can not be read any more: {error}"
      ) from error

  async def check(self) -> None:
    """Finds a passage of the index by its own words."""
    texts = (
      f"{passage.title} {passage.text}"
      for passage in map(self._index.passage, range(len(self._index)))
    )
    text = next(text for text in texts if bm25_index.words(text))
    if not self._search(text, 1):
      raise errors.ToolHostError("the search index does not find its passages")


class DenseSearch:
  """Nearest vectors of a saved index."""

  def __init__(
    self, index: dense_index.DenseIndex, embedder: embeddings_lib.Embedder
  ):
    self._index = index
    self._embedder = embedder

  async def search(
    self,
    query: str,
    top_k: int,
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> Sequence[bm25_index.Hit]:
    """The nearest passages; there are always some.

    Raises:
      ToolHostError: the embedding endpoint failed.
    """
    (vector_D,) = await self._embedder.embed([query], deadline)
    return await asyncio.to_thread(self._index.search, vector_D, top_k)

  async def check(self) -> None:
    """Embeds a passage and searches with it."""
    await self.search(self._index.passage(0).text or "test", 1)
