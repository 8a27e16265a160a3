"""Compiled search: the bits of the plain one, on any corpus and query."""

import subprocess
import sys
import threading

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from agentflow_jax.tools import bm25_index

bm25_compiled = pytest.importorskip("agentflow_jax.tools.bm25_compiled")

_settings = hypothesis.settings(deadline=None, max_examples=100)


def _both(directory, texts):
  bm25_index.build(
    (
      bm25_index.Passage(id=f"{i:05}", title="", text=text)
      for i, text in enumerate(texts)
    ),
    directory,
  )
  plain = bm25_index.Bm25Index.open(directory)
  compiled = bm25_index.Bm25Index.open(directory, bm25_compiled.best)
  return plain, compiled


def _zipf_texts(rng, passages):
  """Common and rare words, some passages twice."""
  return [
    " ".join(f"w{int(w)}" for w in rng.zipf(1.3, int(rng.integers(1, 40))))
    for _ in range(passages)
  ]


def test_same_bits_where_common_words_are_left_out(tmp_path):
  rng = np.random.default_rng(0)
  texts = _zipf_texts(rng, 3000)
  plain, compiled = _both(tmp_path / "index", texts + texts[:50])
  for _ in range(300):
    words = [f"w{int(w)}" for w in rng.zipf(1.2, int(rng.integers(1, 30)))]
    query = " ".join(words)
    for top_k in (1, 3, 100):
      assert compiled.find(query, top_k) == plain.find(query, top_k)


@_settings
@hypothesis.given(
  st.lists(st.text("abc ", max_size=12), min_size=1, max_size=30),
  st.text("abc ", max_size=10),
  st.integers(1, 40),
)
def test_same_bits_with_ties(tmp_path_factory, texts, query, top_k):
  hypothesis.assume(any(text.strip() for text in texts))
  plain, compiled = _both(tmp_path_factory.mktemp("bm25") / "index", texts)
  assert compiled.search(query, top_k) == plain.search(query, top_k)


def test_threads_do_not_disturb_each_other(tmp_path):
  rng = np.random.default_rng(1)
  plain, compiled = _both(tmp_path / "index", _zipf_texts(rng, 2000))
  queries = [f"w{a} w{b} w1 w2" for a in range(1, 15) for b in range(15)]
  expected = [plain.find(query, 3) for query in queries]
  found = []

  def search():
    found.append([compiled.find(query, 3) for query in queries])

  threads = [threading.Thread(target=search) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == [expected] * 4


def test_the_package_searches_without_numba():
  """Nothing but the server imports it: that takes a second."""
  program = (
    "import sys; sys.modules['numba'] = None;"
    "from agentflow_jax.tools import bm25_index, registry, retrieval_server"
  )
  subprocess.run([sys.executable, "-c", program], check=True)
