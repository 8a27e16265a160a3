"""Wikipedia_Search_Tool over small indexes."""

import asyncio

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import (
  bm25_index,
  metered,
  search_index,
  wikipedia_search,
)

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)

PASSAGES = [
  bm25_index.Passage(
    id="laos",
    title="Laos",
    text="Laos is a country in Asia.\n\nIts  currency is the kip.",
  ),
  bm25_index.Passage(
    id="mali", title="Mali", text="Mali is a country in Africa."
  ),
  bm25_index.Passage(
    id="peru", title="Peru", text="Peru is a country in South America."
  ),
]


@pytest.fixture
def index_dir(tmp_path):
  bm25_index.build(PASSAGES, tmp_path / "index")
  return tmp_path / "index"


def _tool(directory, **options):
  return wikipedia_search.WikipediaSearch(
    search_index.open_index(directory), **options
  )


def _execute(tool: tool_lib.Tool, query):
  return asyncio.run(tool.execute({"query": query}, CONTEXT))


def test_one_line_per_passage_best_first(index_dir):
  tool = _tool(index_dir, top_k=2)
  result = _execute(tool, "Laos country")
  assert result.ok
  assert result.output.splitlines() == [
    "Laos: Laos is a country in Asia. Its currency is the kip.",
    "Mali: Mali is a country in Africa.",
  ]
  one = _tool(index_dir, top_k=1)
  assert len(_execute(one, "country").output.splitlines()) == 1


@pytest.mark.parametrize(
  ("chars", "expected"),
  [
    (0, "Laos: Laos is a country in Asia. Its currency is the kip."),
    (99, "Laos: Laos is a country in Asia. Its currency is the kip."),
    (20, "Laos: Laos is a country"),
    (2, "Laos: La"),
  ],
)
def test_a_passage_is_cut_between_words(index_dir, chars, expected):
  tool = _tool(index_dir, top_k=1, passage_chars=chars)
  assert _execute(tool, "Laos").output == expected


def test_nothing_found_and_bad_queries_are_the_models_doing(index_dir):
  tool = _tool(index_dir)
  for query in ("Vientiane", "?!", "\u200b.*"):
    result = _execute(tool, query)
    assert result.error == tool_lib.ToolErrorKind.NO_RESULT
    assert result.output == "no passage matches"
  assert _execute(tool, " ").error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS
  assert _execute(tool, 3).error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS


def _spied(tool, monkeypatch, search=None):
  """Replaces the BM25 search under a tool; returns the queries it gets."""
  index = tool._index._index
  asked, old = [], index.search
  monkeypatch.setattr(
    index,
    "search",
    lambda query, top_k: asked.append(query) or (search or old)(query, top_k),
  )
  return asked


def test_repeated_queries_are_answered_from_the_cache(index_dir, monkeypatch):
  monkeypatch.setattr(metered, "CACHED_CALLS", 2)
  inner = _tool(index_dir)
  searched = _spied(inner, monkeypatch)
  tool = metered.MeteredTool(inner, cache_s=float("inf"))
  first = _execute(tool, "Laos")
  assert _execute(tool, "Laos").output == first.output
  assert _execute(tool, "Nowhere").error == tool_lib.ToolErrorKind.NO_RESULT
  assert _execute(tool, "Nowhere").error == tool_lib.ToolErrorKind.NO_RESULT
  _execute(tool, "Laos")  # now the most recent one
  _execute(tool, "Peru")  # drops "Nowhere"
  _execute(tool, "Laos")
  _execute(tool, "Nowhere")
  assert searched == ["Laos", "Nowhere", "Peru", "Nowhere"]
  assert tool.metrics()["calls"] == 8
  assert tool.metrics()["cached"] == 4
  assert tool.metrics()["error/no_result"] == 3


def test_a_large_index_is_searched_off_the_event_loop(index_dir, monkeypatch):
  monkeypatch.setattr(search_index, "_INLINE_PASSAGES", 2)
  tool = _tool(index_dir)

  async def gather():
    return await asyncio.gather(
      *(tool.execute({"query": f"Laos {i % 5}"}, CONTEXT) for i in range(40))
    )

  assert {result.output for result in asyncio.run(gather())} == {
    "Laos: Laos is a country in Asia. Its currency is the kip."
  }


def test_a_missing_index_or_silly_top_k_is_refused_at_once(tmp_path, index_dir):
  with pytest.raises(errors.UserError, match="there is none"):
    _tool(tmp_path / "nowhere")
  with pytest.raises(errors.ConfigError, match="search_top_k is 0"):
    _tool(index_dir, top_k=0)


def test_an_index_that_breaks_later_is_a_host_error(index_dir, monkeypatch):
  tool = _tool(index_dir)

  def broken(query, top_k):
    raise IndexError("index 99 is out of bounds")

  _spied(tool, monkeypatch, broken)
  with pytest.raises(errors.ToolHostError, match="out of bounds"):
    _execute(tool, "Laos")
  with pytest.raises(errors.ToolHostError, match="out of bounds"):
    asyncio.run(tool.check())


def test_check_finds_a_passage(tmp_path, index_dir, monkeypatch):
  tool = _tool(index_dir)
  asyncio.run(tool.check())
  _spied(tool, monkeypatch, lambda query, top_k: [])
  with pytest.raises(errors.ToolHostError, match="does not find"):
    asyncio.run(tool.check())
  wordless = bm25_index.Passage(id="0", title="?", text="!")
  bm25_index.build([wordless, *PASSAGES], tmp_path / "other")
  other = _tool(tmp_path / "other")
  asyncio.run(other.check())
  asyncio.run(other.aclose())
