"""Search tools against real servers on loopback that speak their APIs."""

import asyncio
import json

import local_server
import numpy as np
import pytest
import search_fakes

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import (
  bm25_index,
  dense_index,
  embeddings,
  google_search,
  mediawiki,
  passages,
  search_index,
  search_services,
  wikipedia_search,
)

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)
Kind = tool_lib.ToolErrorKind


def _execute(tool, **arguments):
  return asyncio.run(tool.execute(arguments, CONTEXT))


def _google(backend, url, top_k=3):
  service = search_services.SERVICES[backend](url, "a-model")
  return google_search.GoogleSearch(service, top_k=top_k)


def test_wikipedia_over_the_api_finds_the_passage_in_a_long_page():
  with local_server.serving(search_fakes.wiki) as server:
    source = mediawiki.MediaWikiSearch(
      server.url + "/w/api.php", passages.LexicalRanker()
    )
    tool = wikipedia_search.WikipediaSearch(source, top_k=1)
    result = _execute(tool, query="currency kip")
    assert result.output.startswith("Page 7: ")
    assert result.output.endswith("The currency is the kip.")
    assert len(result.output.split()) < 210
    assert _execute(tool, query="nothing").error == Kind.NO_RESULT
    asyncio.run(tool.check())


@pytest.mark.parametrize(
  "answer",
  [
    lambda h: h.send(b"", 500),
    lambda h: h.send(b"", 429),
    lambda h: h.send(b"{"),
    lambda h: h.send_json([]),
    lambda h: h.send_json({"query": {"search": [{}]}}),
    lambda h: h.send_json({"items": 3, "results": 3, "result": 3}),
    lambda h: None,
  ],
)
@pytest.mark.parametrize(
  "backend", ["wikipedia", "embedding", *search_services.SERVICES]
)
def test_services_that_fail_are_host_errors(monkeypatch, backend, answer):
  for variable in ("GOOGLE_API_KEY", "GOOGLE_SEARCH_ENGINE_ID"):
    monkeypatch.setenv(variable, "canary-secret")
  with local_server.serving(answer) as server:
    if backend == "wikipedia":
      source = mediawiki.MediaWikiSearch(server.url, passages.LexicalRanker())
      tool = wikipedia_search.WikipediaSearch(source)
    elif backend == "embedding":
      ranker = passages.DenseRanker(embeddings.Embedder(server.url, "m"))
      call = ranker.rank("a", ["b"], 1, CONTEXT.deadline)
      with pytest.raises(errors.ToolHostError):
        asyncio.run(call)
      return
    else:
      tool = _google(backend, server.url)
    try:
      result = _execute(tool, query="kip")
    except errors.ToolHostError as error:
      assert "canary" not in str(error)
      assert server.url not in str(error)
    else:  # an empty object is an answer for some of them
      assert result.error == Kind.NO_RESULT
    assert all("canary" not in path for _, path, _ in server.requests) or (
      backend == "programmable_search"
    )


def test_google_programmable_search(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "the-key")
  monkeypatch.setenv("GOOGLE_SEARCH_ENGINE_ID", "the-engine")
  answer = search_fakes.GOOGLE["programmable_search"]
  with local_server.serving(lambda h: h.send_json(answer)) as server:
    result = _execute(_google("programmable_search", server.url), query="Laos")
    assert result.output.splitlines() == [
      "[1] Laos (https://a.example/): A country.",
      "[2] Kip (https://b.example/)",
    ]
    assert server.seen[0]["x-goog-api-key"] == "the-key"
    assert "the-key" not in server.requests[0][1]
    assert "cx=the-engine" in server.requests[0][1]


def test_gemini_grounding_cites_its_sources(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "the-key")
  answer = search_fakes.GOOGLE["gemini"]
  with local_server.serving(lambda h: h.send_json(answer)) as server:
    result = _execute(_google("gemini", server.url), query="Laos?")
    assert result.output.splitlines() == [
      "\u00c9: the kip.[1]",
      "[1] a (https://a.example/)",
    ]
    method, path, body = server.requests[0]
    assert (method, path) == ("POST", "/models/a-model:generateContent")
    assert json.loads(body)["tools"] == [{"google_search": {}}]


def test_searxng():
  answer = search_fakes.GOOGLE["searxng"]
  with local_server.serving(lambda h: h.send_json(answer)) as server:
    result = _execute(_google("searxng", server.url, top_k=2), query="a b")
    assert len(result.output.splitlines()) == 2
    assert server.requests[0][1] == "/search?q=a+b&format=json"


def test_a_retrieve_endpoint(monkeypatch):
  monkeypatch.setenv("RETRIEVER_TOKEN", "the-token")
  document = search_fakes.DOCUMENT
  answers = [
    {"result": [[{"document": document, "score": 1.5}]]},
    {"result": [[document]]},
    {"result": [[]]},
  ]
  with local_server.serving(lambda h: h.send_json(answers.pop(0))) as server:
    tool = _google("retrieve", server.url + "/retrieve")
    for _ in range(2):
      assert _execute(tool, query="Laos").output == "[1] Laos: A country."
    assert _execute(tool, query="Laos").error == Kind.NO_RESULT
    assert json.loads(server.requests[0][2]) == {
      "queries": ["Laos"], "topk": 3, "return_scores": True
    }  # fmt: skip
    assert server.seen[0]["authorization"] == "Bearer the-token"


def test_missing_keys_and_addresses_are_refused_at_once(monkeypatch):
  monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
  for backend in ("programmable_search", "gemini"):
    with pytest.raises(errors.UserError, match="GOOGLE_API_KEY"):
      _google(backend, "")
  for backend in ("searxng", "retrieve"):
    with pytest.raises(errors.ConfigError, match="google_url"):
      _google(backend, "")


def test_a_dense_index_is_searched_with_the_endpoint(tmp_path):
  texts = {"1": "kkkk", "2": "llll", "3": "klkl"}
  found = [
    bm25_index.Passage(id=i, title=f"T{i}", text=t) for i, t in texts.items()
  ]
  with local_server.serving(search_fakes.embedding) as server:
    embedder = embeddings.Embedder(server.url + "/v1", "m")
    asyncio.run(dense_index.build(found, embedder, tmp_path / "index"))
    index = search_index.open_index(tmp_path / "index", embedder)
    tool = wikipedia_search.WikipediaSearch(index, top_k=2)
    result = _execute(tool, query="llllll")
    assert result.output.splitlines() == ["T2: llll", "T3: klkl"]
    asyncio.run(tool.check())
    assert server.requests[0][1] == "/v1/embeddings"
    ranker = passages.DenseRanker(embedder)
    order = asyncio.run(
      ranker.rank("lll", list(texts.values()), 2, CONTEXT.deadline)
    )
    assert order == [1, 2]
  with pytest.raises(errors.UserError, match="embedding_url"):
    search_index.open_index(tmp_path / "index")
  opened = dense_index.DenseIndex.open(tmp_path / "index")
  with pytest.raises(errors.UserError, match="embedding_model"):
    opened.search(np.ones(5, np.float32), 1)
  path = tmp_path / "index" / "vectors_ND.npy"
  path.write_bytes(path.read_bytes()[:-1] + b"x")
  with pytest.raises(errors.UserError, match="damaged"):
    search_index.open_index(tmp_path / "index", embedder)
