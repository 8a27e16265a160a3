"""Cuts long texts into passages and finds those that answer a query.

Flow: texts -> `chunk` -> `Ranker.rank(query, passages, top_k)` -> positions,
best first. The lexical ranker is BM25 over the passages at hand; the dense one
compares vectors of an embedding endpoint and costs one request.
"""

import asyncio
import collections
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.tools import bm25_index
from agentflow_jax.tools import embeddings as embeddings_lib

CHUNK_WORDS = 200
OVERLAP_WORDS = 20
# Ranked at most, so that a book costs no more than a long page.
MAX_CHUNKS = 2000
# Sent to an embedding endpoint at most.
_MAX_EMBEDDED = 256


def chunk(
  text: str, words: int = CHUNK_WORDS, overlap: int = OVERLAP_WORDS
) -> list[str]:
  """Passages of `words` words; neighbours share `overlap` words.

  Args:
    text: any text; runs of whitespace become one space.
    words: per passage, more than `overlap`.
    overlap: words the next passage repeats, so that no sentence is lost.

  Example: `chunk("a b c d", words=3, overlap=1)` is `["a b c", "c d"]`.
  """
  if not 0 <= overlap < words:
    raise ValueError(f"need 0 <= overlap < words, got {overlap=}, {words=}")
  found = text.split()
  step = words - overlap
  starts = range(0, max(1, len(found) - overlap), step)
  return [
    " ".join(found[start : start + words])
    for start in starts[:MAX_CHUNKS]
    if found
  ]


class Ranker(Protocol):
  """Orders passages by how well they answer a query."""

  async def rank(
    self,
    query: str,
    passages: Sequence[str],
    top_k: int,
    deadline: deadline_lib.Deadline,
  ) -> list[int]:
    """Positions of the best passages, best first, at most `top_k`."""
    ...


class LexicalRanker:
  """BM25 with the statistics of the passages themselves."""

  async def rank(
    self,
    query: str,
    passages: Sequence[str],
    top_k: int,
    deadline: deadline_lib.Deadline,
  ) -> list[int]:
    """Passages that share no word with the query come last, in order."""
    del deadline
    return await asyncio.to_thread(lexical_order, query, passages, top_k)


def lexical_order(query: str, passages: Sequence[str], top_k: int) -> list[int]:
  """The order of `LexicalRanker`."""
  counts = [collections.Counter(bm25_index.words(text)) for text in passages]
  lengths = [sum(count.values()) for count in counts]
  mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
  scores = [0.0] * len(passages)
  for term in sorted(set(bm25_index.words(query))):
    holders = [index for index, count in enumerate(counts) if term in count]
    idf = math.log1p(
      (len(passages) - len(holders) + 0.5) / (len(holders) + 0.5)
    )
    for index in holders:
      frequency = counts[index][term]
      damping = bm25_index.K1 * (
        1 - bm25_index.B + bm25_index.B * lengths[index] / mean
      )
      scores[index] += idf * frequency / (frequency + damping)
  best_first = sorted(range(len(passages)), key=lambda i: (-scores[i], i))
  return best_first[:top_k]


class DenseRanker:
  """Cosine of embedding vectors; the lexically best are embedded."""

  def __init__(self, embedder: embeddings_lib.Embedder):
    self._embedder = embedder

  async def rank(
    self,
    query: str,
    passages: Sequence[str],
    top_k: int,
    deadline: deadline_lib.Deadline,
  ) -> list[int]:
    """Raises ToolHostError if the endpoint fails."""
    shortlist = await asyncio.to_thread(
      lexical_order, query, passages, _MAX_EMBEDDED
    )
    texts = [query, *(passages[index] for index in shortlist)]
    vectors_ND = await self._embedder.embed(texts, deadline)
    order = np.argsort(-(vectors_ND[1:] @ vectors_ND[0]), kind="stable")
    return [shortlist[int(index)] for index in order[:top_k]]
