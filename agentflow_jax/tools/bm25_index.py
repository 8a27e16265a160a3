"""A BM25 index of text passages, saved to disk and memory-mapped.

Flow: `build(passages, directory)` tokenises, scores every (term, passage) pair
once and writes the arrays; `Bm25Index.open(directory).search(query, top_k)`
finds the best (tools/bm25_pruning.py). Scores are Lucene's BM25 (Kamphuis
et al. 2020, "Which BM25 do you mean?"):

  idf(t) * tf / (tf + K1 * (1 - B + B * length / mean length)),
  idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)).

They equal those of the bm25s library, which is not imported: importing it runs
a jax computation, which would take the accelerator before training does.

What it does not do: stemming, stop words, phrases or spelling. Text written
without spaces (Chinese, Japanese) is one term per run of letters. Building
holds all passages in memory.

Axes: N passage (sorted by id), W word of all passages in that order, V term (by
first word), P posting (a term in a passage; by term, then by passage).
"""

import array
import dataclasses
import json
import mmap
import os
import pathlib
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import numpy as np

from agentflow_jax.core import errors
from agentflow_jax.tools import bm25_pruning, index_files

K1 = 1.5
B = 0.75
# A title counts this often in the indexed text, because people and planners
# search by name. On 396 multi-hop questions over 6,600 Wikipedia passages,
# recall@3 is .55, .57, .58, .59 for 1, 2, 3, 4.
TITLE_WEIGHT = 3

_HEADER = {"kind": "agentflow_jax bm25 index", "version": 1}
_ADVICE = (
  "build it with agentflow_jax.tools.bm25_index.build, or point "
  "tools.search_index_dir at one"
)
_BLOCK_PASSAGES = 1 << 16  # whose words are sorted at once
_WORD = re.compile(r"[^\W_]+")

_PASSAGES = "passages.jsonl"
_TERMS = "terms.txt"
_PASSAGE_STARTS = "passage_starts_N.npy"  # int64 [N + 1], bytes
_POSTING_STARTS = "posting_starts_V.npy"  # int64 [V + 1]
_POSTINGS = "postings_P.npy"  # int32 [P], the passage
_SCORES = "scores_P.npy"  # float32 [P]


_Best = Callable[..., tuple[np.ndarray, np.ndarray]]  # as bm25_pruning.best


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
  """One text to find.

  Example: `Passage(id="laos", title="Laos", text="Laos is a country.")`.
  """

  id: str
  title: str
  text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
  """A passage and its BM25 score, which is positive."""

  passage: Passage
  score: float


def words(text: str) -> list[str]:
  """The terms of a text: runs of letters and digits, case folded.

  Example: "The F.I.R. (album)" -> ["the", "f", "i", "r", "album"].
  """
  if not text.isascii():
    text = unicodedata.normalize("NFKC", text)
  return _WORD.findall(text.casefold())


def build(
  passages: Iterable[Passage], directory: str | os.PathLike[str]
) -> None:
  """Writes an index, replacing the one that is there, all or nothing.

  The files depend on the set of passages only, not on their order.

  Args:
    passages: texts with unique ids.
    directory: where the index goes; parents are created.

  Raises:
    UserError: no passage has a word, an id occurs twice, or `directory` holds
      something that is not an index.
  """
  passages_N = sorted(passages, key=lambda passage: passage.id)
  for one, other in zip(passages_N, passages_N[1:], strict=False):
    if one.id == other.id:
      raise errors.UserError(f"two passages have the id {one.id!r}")
  terms_V, term_W, length_N = _count(passages_N)
  if not terms_V:
    raise errors.UserError("there is no word to index in the passages")
  posting_starts_V, postings_P, scores_P = _score(
    term_W, length_N, len(terms_V)
  )

  def fill(target: pathlib.Path) -> None:
    np.save(target / _PASSAGE_STARTS, _write_passages(target, passages_N))
    (target / _TERMS).write_text("\n".join(terms_V), encoding="utf-8")
    np.save(target / _POSTING_STARTS, posting_starts_V)
    np.save(target / _POSTINGS, postings_P)
    np.save(target / _SCORES, scores_P)

  header = {
    **_HEADER,
    "passages": len(passages_N),
    "terms": len(terms_V),
    "postings": len(postings_P),
    "title_weight": TITLE_WEIGHT,
    "k1": K1,
    "b": B,
  }
  index_files.publish(pathlib.Path(directory), header, fill)


def _count(
  passages_N: Sequence[Passage],
) -> tuple[list[str], np.ndarray, np.ndarray]:
  """Terms, the term of every word (int32 [W]), words per passage."""
  index: dict[str, int] = {}
  term_W = array.array("i")
  lengths = array.array("q")
  for passage in passages_N:
    text = words(passage.title) * TITLE_WEIGHT + words(passage.text)
    term_W.extend([index.setdefault(word, len(index)) for word in text])
    lengths.append(len(text))
  return list(index), np.frombuffer(term_W, np.int32), np.array(lengths)


def _score(
  term_W: np.ndarray, length_N: np.ndarray, terms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Posting starts, passages and BM25 scores, by term, then by passage."""
  passages = len(length_N)
  blocks = list(_counted(term_W, length_N))
  passages_with_V = np.zeros(terms, np.int64)
  for term_P, _, _ in blocks:
    passages_with_V += np.bincount(term_P, minlength=terms)
  idf_V = np.log1p((passages - passages_with_V + 0.5) / (passages_with_V + 0.5))
  damping_N = K1 * (1 - B + B * length_N / length_N.mean())
  starts_V = np.concatenate([[0], np.cumsum(passages_with_V)])
  postings_P = np.empty(starts_V[-1], np.int32)
  scores_P = np.empty(starts_V[-1], np.float32)
  free_V = starts_V[:-1].copy()  # where a term's next posting goes
  for term_P, posting_P, frequency_P in blocks:
    here_V = np.bincount(term_P, minlength=terms)
    first_V = np.cumsum(here_V) - here_V
    place_P = (free_V - first_V)[term_P] + np.arange(len(term_P))
    postings_P[place_P] = posting_P
    scores_P[place_P] = (
      idf_V[term_P] * frequency_P / (frequency_P + damping_N[posting_P])
    )
    free_V += here_V
  return starts_V.astype(np.int64), postings_P, scores_P


def _counted(
  term_W: np.ndarray, length_N: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Term, passage and frequency of every posting (int32), block by block.

  Blocks of passages, because to sort all words at once takes ten times their
  memory; within a block by term, then by passage.
  """
  end_N = np.cumsum(length_N)
  for first in range(0, len(length_N), _BLOCK_PASSAGES):
    lengths = length_N[first : first + _BLOCK_PASSAGES]
    last = first + len(lengths)
    terms = term_W[end_N[first] - length_N[first] : end_N[last - 1]]
    passage = np.repeat(np.arange(len(lengths)), lengths)
    pair_P, frequency_P = np.unique(
      terms.astype(np.int64) * len(lengths) + passage, return_counts=True
    )
    term_P, posting_P = np.divmod(pair_P, len(lengths))
    yield (
      term_P.astype(np.int32),
      (posting_P + first).astype(np.int32),
      frequency_P.astype(np.int32),
    )


def _write_passages(
  target: pathlib.Path, passages_N: Sequence[Passage]
) -> np.ndarray:
  """Writes one JSON line per passage; returns where each starts, in bytes."""
  starts_N = np.zeros(len(passages_N) + 1, np.int64)
  with (target / _PASSAGES).open("wb") as file:
    for index, passage in enumerate(passages_N):
      line = json.dumps(dataclasses.asdict(passage), ensure_ascii=False) + "\n"
      # Half a surrogate pair is no text; it becomes a question mark.
      file.write(line.encode("utf-8", "replace"))
      starts_N[index + 1] = file.tell()
  return starts_N


class Bm25Index:
  """An open index; read-only, shared by threads, nothing to close.

  Example: `Bm25Index.open("idx").search("currency of Laos", 3)[0].passage`.
  """

  def __init__(
    self,
    *,
    term_index: dict[str, int],
    passage_bytes: mmap.mmap,
    passage_starts_N: np.ndarray,
    posting_starts_V: np.ndarray,
    postings_P: np.ndarray,
    scores_P: np.ndarray,
    best: _Best,
  ):
    """Use `open`."""
    self._best = best
    self._term_index = term_index
    self._passage_bytes = passage_bytes
    self._passage_starts_N = passage_starts_N
    self._posting_starts_V = posting_starts_V
    self._postings_P = postings_P
    self._scores_P = scores_P
    self._most_V = np.maximum.reduceat(scores_P, posting_starts_V[:-1])
    self._local = threading.local()

  @classmethod
  def open(
    cls,
    directory: str | os.PathLike[str],
    best: _Best = bm25_pruning.best,
  ) -> Self:
    """Checks every file against the manifest and maps the arrays.

    Args:
      directory: written by `build`.
      best: finds the best; `bm25_compiled.best` is faster and needs numba.

    Raises:
      UserError: the index is missing, damaged, or of another version.
    """
    directory = pathlib.Path(directory)
    index_files.verify(directory, _HEADER, _ADVICE)
    terms = (directory / _TERMS).read_text(encoding="utf-8").split("\n")
    with (directory / _PASSAGES).open("rb") as file:
      passage_bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    index = cls(
      term_index={term: index for index, term in enumerate(terms)},
      passage_bytes=passage_bytes,
      passage_starts_N=_map(directory / _PASSAGE_STARTS),
      posting_starts_V=_map(directory / _POSTING_STARTS),
      postings_P=_map(directory / _POSTINGS),
      scores_P=_map(directory / _SCORES),
      best=best,
    )
    index.find(terms[0], 1)  # compiles what is to be compiled
    return index

  def __len__(self) -> int:
    """How many passages there are."""
    return len(self._passage_starts_N) - 1

  def line(self, index: int) -> bytes:
    """The passage at a position, as JSON: "id", "title", "text", in order."""
    # Python's own integers slice in half the time.
    starts_N = self._passage_starts_N
    return self._passage_bytes[starts_N.item(index) : starts_N.item(index + 1)]

  def passage(self, index: int) -> Passage:
    """The passage at a position; positions follow the sorted ids."""
    return Passage(**json.loads(self.line(index).decode()))

  def search(self, query: str, top_k: int) -> list[Hit]:
    """The best passages, best first; equal scores in the order of their ids.

    A word that occurs twice in the query counts twice. Passages that share no
    word with the query are never returned.

    Args:
      query: any text.
      top_k: passages returned at most, from 1.
    """
    return [
      Hit(passage=self.passage(index), score=score)
      for index, score in self.find(query, top_k)
    ]

  def find(self, query: str, top_k: int) -> list[tuple[int, float]]:
    """As `search`, but positions of passages and their scores."""
    if top_k < 1:
      raise ValueError(f"top_k is {top_k}, need at least 1")
    index = self._term_index
    word_W = [index[word] for word in words(query) if word in index]
    if not word_W:
      return []
    found_K, scores_K = self._best(
      np.array(word_W, np.int64),
      self._posting_starts_V,
      self._postings_P,
      self._scores_P,
      self._most_V,
      self._scratch(),
      top_k,
    )
    return list(zip(found_K.tolist(), scores_K.tolist(), strict=True))

  def _scratch(self) -> np.ndarray:
    """float32 zeros [N], of this thread."""
    scratch_N = getattr(self._local, "scratch_N", None)
    if scratch_N is None:
      scratch_N = self._local.scratch_N = np.zeros(len(self), np.float32)
    return scratch_N


def _map(path: pathlib.Path) -> np.ndarray:
  """A memory-mapped array, without the slow subclass numpy wraps it in."""
  return np.load(path, mmap_mode="r").view(np.ndarray)
