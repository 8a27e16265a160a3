"""Cuts long texts into passages and finds those that answer a query.

Flow: texts -> `chunk` -> `Ranker.rank(query, passages, top_k)` -> positions,
best first. The lexical ranker is BM25 over the passages at hand; the dense one
compares vectors of an embedding endpoint and costs one request.
"""

import asyncio
import collections
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.tools import bm25_index
from agentflow_jax.tools import embeddings as embeddings_lib

CHUNK_WORDS = 200
OVERLAP_WORDS = 20
# 200 words of prose are shorter. Scripts without spaces, and data, are not.
CHUNK_CHARS = 2000
# Ranked at most, so that a book costs no more than a long page.
MAX_CHUNKS = 2000
# Sent to an embedding endpoint at most.
_MAX_EMBEDDED = 256
# A longer word is cut, so that every passage has an end.
_WORD = re.compile(r"\S{1,100}")
# Neighbours share at most this part of a passage's characters.
_OVERLAP_PART = 10


def chunk(
  text: str, words: int = CHUNK_WORDS, overlap: int = OVERLAP_WORDS
) -> list[str]:
  """Passages of `words` words; neighbours share `overlap` words.

  Fewer, where a passage would be longer than CHUNK_CHARS. At most MAX_CHUNKS;
  what comes after them is not looked at.

  Args:
    text: any text; runs of whitespace become one space.
    words: per passage, more than `overlap`.
    overlap: words the next passage repeats, so that no sentence is lost.

  Example: `chunk("a b c d", words=3, overlap=1)` is `["a b c", "c d"]`.
  """
  if not 0 <= overlap < words:
    raise ValueError(f"need 0 <= overlap < words, got {overlap=}, {words=}")
  return list(
    itertools.islice(_windows(_pieces(text), words, overlap), MAX_CHUNKS)
  )


def _pieces(text: str) -> Iterator[str]:
  """Words, each behind a space unless it goes on with the one before."""
  end = 0
  # One at a time: all words of a page are many times larger than the page.
  for match in _WORD.finditer(text):
    goes_on = end and match.start() == end
    yield match.group() if goes_on else f" {match.group()}"
    end = match.end()


def _windows(pieces: Iterator[str], words: int, overlap: int) -> Iterator[str]:
  window: collections.deque[str] = collections.deque()
  chars = fresh = 0  # `fresh` pieces are in no passage yet
  for piece in pieces:
    if len(window) == words or chars + len(piece) > CHUNK_CHARS:
      yield _passage(window)
      fresh = 0
      while len(window) > overlap or chars * _OVERLAP_PART > CHUNK_CHARS:
        chars -= len(window.popleft())
    window.append(piece)
    chars += len(piece)
    fresh += 1
  if fresh:
    yield _passage(window)


def _passage(window: Iterable[str]) -> str:
  return "".join(window).lstrip(" ")


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
  terms = set(bm25_index.words(query))
  counts, lengths = [], []
  for text in passages:
    found = bm25_index.words(text)
    lengths.append(len(found))
    # Of the query's words only: the others need not be kept.
    counts.append(collections.Counter(w for w in found if w in terms))
  mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
  scores = [0.0] * len(passages)
  for term in sorted(terms):
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
