"""Load on the retrieval server: every query is answered, what is not counts."""

import pathlib

import pytest

from agentflow_jax.benchmarks import retriever_load
from agentflow_jax.core import errors

_CORPUS = (
  pathlib.Path(__file__).parents[3]
  / "shared/data/wiki_passages/corpus.jsonl.gz"
)
_LOAD = retriever_load.Load(clients=16, queries_each=3)


def test_worldfacts_are_served_to_many_at_once():
  pytest.importorskip("httptools")
  found = retriever_load.run(load=_LOAD)
  assert found["retriever_errors"] == 0
  assert found["retriever_passages"] > 1000
  assert 0 < found["retriever_p50_ms"] <= found["retriever_p99_ms"]
  assert found["retriever_queries_per_s"] > 0


@pytest.mark.slow
def test_256_clients_on_wikipedia_lose_nothing():
  pytest.importorskip("httptools")
  if not _CORPUS.exists():
    pytest.skip("no ../shared/data/wiki_passages beside the repository")
  found = retriever_load.run(str(_CORPUS))
  assert found["retriever_passages"] == 55734
  assert found["retriever_errors"] == 0


def test_what_is_refused_is_an_error_not_an_answer(tmp_path):
  pytest.importorskip("httptools")
  from agentflow_jax.tools import bm25_index

  passage = bm25_index.Passage(id="1", title="Laos", text="in Asia")
  bm25_index.build([passage], tmp_path / "index")
  with retriever_load.Server(tmp_path / "index") as server:
    server.token = "another"
    answers = retriever_load.ask(server, ["Laos"] * 48, _LOAD, 0.0)
  assert answers.errors == 48


def test_a_server_that_does_not_start_says_why(tmp_path):
  with pytest.raises(errors.UserError, match="no retrieval server: .+"):
    retriever_load.Server(tmp_path / "nothing")
