"""Load on the retrieval server: every query is answered, what is not counts."""

import pathlib
import socket
import threading
import types

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
  low, high = found["retriever_p99_ms_min"], found["retriever_p99_ms_max"]
  assert low <= found["retriever_p99_ms"] <= high
  assert found["retriever_paced_p99_ms"] > 0
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


def test_queries_differ_so_that_no_cache_helps():
  found = [("1", "Laos", "a b c d e f g"), ("2", "Peru", "h i j k l m")]
  queries = retriever_load._queries(found, 500)
  assert len(set(queries)) == 500


def test_connections_that_end_leave_errors_and_nobody_waits():
  listener = socket.create_server(("127.0.0.1", 0), backlog=64)

  def hang_up():
    for _ in range(_LOAD.clients):
      listener.accept()[0].close()

  thread = threading.Thread(target=hang_up)
  thread.start()
  server = types.SimpleNamespace(port=listener.getsockname()[1], token="")
  answers = retriever_load.ask(server, ["Laos"] * 48, _LOAD, 0.0)
  thread.join()
  listener.close()
  assert (answers.errors, list(answers.seconds)) == (48, [])
  # Nobody listens any more.
  assert retriever_load.ask(server, ["Laos"] * 48, _LOAD, 0.0).errors == 48


def test_a_server_that_does_not_start_says_why(tmp_path):
  with pytest.raises(errors.UserError, match="no retrieval server: .+"):
    retriever_load.Server(tmp_path / "nothing")
