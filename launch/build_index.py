"""Builds the search index that wikipedia_search uses from a corpus.

A corpus is JSONL (.gz) with id, title and text per line, or the folder that
WikiExtractor --json makes from a Wikipedia dump (use --chunk_words=100 there).
The index is memory-mapped: it opens at once and is shared by processes.

Example:
  python launch/build_index.py --corpus=wiki_passages.jsonl.gz --out=wiki_index
  python launch/train.py --config.tools.search_index_dir=wiki_index
"""

import asyncio
import pathlib
import time

from absl import flags

from agentflow_jax.core import errors
from agentflow_jax.training import cli

_CORPUS = flags.DEFINE_string(
  "corpus", None, "A file, or a folder of files.", required=True
)
_OUT = flags.DEFINE_string(
  "out",
  None,
  "Directory of the index; an older index there is replaced.",
  required=True,
)
_CHUNK_WORDS = flags.DEFINE_integer(
  "chunk_words",
  0,
  "Cut longer texts into passages of so many words; 0 = leave them.",
  lower_bound=0,
)
_EMBEDDING_URL = flags.DEFINE_string(
  "embedding_url",
  "",
  "An OpenAI-compatible embedding API; then the index is dense.",
)
_EMBEDDING_MODEL = flags.DEFINE_string(
  "embedding_model", "", "The model to ask there."
)


def main(argv: list[str]) -> None:
  del argv
  if bool(_EMBEDDING_URL.value) != bool(_EMBEDDING_MODEL.value):
    raise errors.UserError("--embedding_url and --embedding_model go together")
  from agentflow_jax.tasks.datasets import corpora
  from agentflow_jax.tools import bm25_index, dense_index, embeddings

  started_s = time.monotonic()
  passages = (
    bm25_index.Passage(id=passage_id, title=title, text=text)
    for passage_id, title, text in corpora.passages(
      pathlib.Path(_CORPUS.value), chunk_words=_CHUNK_WORDS.value
    )
  )
  if _EMBEDDING_URL.value:
    embedder = embeddings.Embedder(_EMBEDDING_URL.value, _EMBEDDING_MODEL.value)
    try:
      asyncio.run(dense_index.build(passages, embedder, _OUT.value))
    except errors.ToolHostError as error:
      raise errors.UserError(str(error)) from error
    index = dense_index.DenseIndex.open(_OUT.value)
  else:
    bm25_index.build(passages, _OUT.value)
    index = bm25_index.Bm25Index.open(_OUT.value)
  print(
    f"{len(index)} passages in {time.monotonic() - started_s:.1f} s: "
    f"{_OUT.value}"
  )


if __name__ == "__main__":
  cli.run_app(main)
