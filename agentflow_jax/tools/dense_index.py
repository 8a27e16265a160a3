"""A saved index of passages by their embedding vectors.

Flow: `build(passages, embedder, directory)` embeds and writes;
`DenseIndex.open` maps the files; `search(vector, top_k)` compares with every
passage (exact, one matrix product). Files are published at once and checked
like those of the BM25 index.

Axes: N passage (sorted by id), D number of a vector.
"""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import Self

import numpy as np

from agentflow_jax.core import errors
from agentflow_jax.tools import bm25_index, embeddings, index_files

HEADER = {"kind": "agentflow_jax dense index", "version": 1}
_ADVICE = (
  "build it with launch/build_index.py --embedding_url, or point "
  "tools.search_index_dir at one"
)
_PASSAGES = "passages.json"
_VECTORS = "vectors_ND.npy"  # float32, unit length


async def build(
  passages: Iterable[bm25_index.Passage],
  embedder: embeddings.Embedder,
  directory: str | os.PathLike[str],
) -> None:
  """Writes an index, replacing the one that is there, all or nothing.

  Raises:
    UserError: no passages, an id occurs twice, or `directory` is something
      else.
    ToolHostError: the embedding endpoint failed.
  """
  passages_N = sorted(passages, key=lambda passage: passage.id)
  if not passages_N:
    raise errors.UserError("there are no passages to index")
  if len({passage.id for passage in passages_N}) < len(passages_N):
    raise errors.UserError("two passages have the same id")
  vectors_ND = await embedder.embed(
    [f"{p.title}\n{p.text}" for p in passages_N]
  )

  def fill(target: pathlib.Path) -> None:
    rows = [[p.id, p.title, p.text] for p in passages_N]
    (target / _PASSAGES).write_text(json.dumps(rows), encoding="utf-8")
    np.save(target / _VECTORS, vectors_ND)

  header = {**HEADER, "passages": len(passages_N), "model": embedder.model}
  index_files.publish(pathlib.Path(directory), header, fill)


class DenseIndex:
  """An open index; read-only, shared by threads, nothing to close."""

  def __init__(
    self,
    passages: list[bm25_index.Passage],
    vectors_ND: np.ndarray,
    model: str,
  ):
    """Use `open`."""
    self._passages = passages
    self._vectors_ND = vectors_ND
    self.model = model

  @classmethod
  def open(cls, directory: str | os.PathLike[str]) -> Self:
    """Checks and maps the files.

    Raises:
      UserError: the index is missing, damaged, or of another version.
    """
    directory = pathlib.Path(directory)
    manifest = index_files.verify(directory, HEADER, _ADVICE)
    rows = json.loads((directory / _PASSAGES).read_text(encoding="utf-8"))
    return cls(
      [bm25_index.Passage(id=i, title=t, text=text) for i, t, text in rows],
      np.load(directory / _VECTORS, mmap_mode="r").view(np.ndarray),
      manifest.get("model", ""),
    )

  def __len__(self) -> int:
    return len(self._passages)

  def passage(self, index: int) -> bm25_index.Passage:
    return self._passages[index]

  def search(self, vector_D: np.ndarray, top_k: int) -> list[bm25_index.Hit]:
    """The passages nearest to a unit vector, by cosine, best first.

    Raises:
      UserError: the vector is of another model (its size differs).
    """
    if vector_D.shape != self._vectors_ND.shape[1:]:
      raise errors.UserError(
        f"the index has vectors of {self._vectors_ND.shape[1]} numbers (model "
        f"{self.model!r}), the query has {vector_D.shape[0]}: set "
        "tools.embedding_model to the one the index was built with"
      )
    scores_N = self._vectors_ND @ vector_D
    best = np.argsort(-scores_N, kind="stable")[:top_k]
    return [
      bm25_index.Hit(
        passage=self._passages[int(i)], score=float(scores_N[int(i)])
      )
      for i in best
    ]
