"""Wikipedia_Search_Tool over small indexes."""

import asyncio

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bm25_index, wikipedia_search

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


def _execute(tool: tool_lib.Tool, query):
  return asyncio.run(tool.execute({"query": query}, CONTEXT))


def test_one_line_per_passage_best_first(index_dir):
  tool = wikipedia_search.WikipediaSearch(index_dir, top_k=2)
  result = _execute(tool, "Laos country")
  assert result.ok
  assert result.output.splitlines() == [
    "Laos: Laos is a country in Asia. Its currency is the kip.",
    "Mali: Mali is a country in Africa.",
  ]
  one = wikipedia_search.WikipediaSearch(index_dir, top_k=1)
  assert len(_execute(one, "country").output.splitlines()) == 1


def test_nothing_found_and_bad_queries_are_the_models_doing(index_dir):
  tool = wikipedia_search.WikipediaSearch(index_dir)
  for query in ("Vientiane", "?!", "\u200b.*"):
    result = _execute(tool, query)
    assert result.error == tool_lib.ToolErrorKind.NO_RESULT
    assert result.output == "no passage matches"
  assert _execute(tool, " ").error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS
  assert _execute(tool, 3).error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS


def test_repeated_queries_are_answered_from_the_cache(index_dir, monkeypatch):
  monkeypatch.setattr(wikipedia_search, "_CACHED_QUERIES", 2)
  tool = wikipedia_search.WikipediaSearch(index_dir)
  searched = []
  search = tool._index.search
  monkeypatch.setattr(
    tool._index,
    "search",
    lambda query, top_k: searched.append(query) or search(query, top_k),
  )
  first = _execute(tool, "Laos")
  assert _execute(tool, " Laos ").output == first.output
  assert _execute(tool, "Nowhere").error == tool_lib.ToolErrorKind.NO_RESULT
  assert _execute(tool, "Nowhere").error == tool_lib.ToolErrorKind.NO_RESULT
  _execute(tool, "Laos")  # now the most recent one
  _execute(tool, "Peru")  # drops "Nowhere"
  _execute(tool, "Laos")
  _execute(tool, "Nowhere")
  assert searched == ["Laos", "Nowhere", "Peru", "Nowhere"]


def test_a_large_index_is_searched_off_the_event_loop(index_dir, monkeypatch):
  monkeypatch.setattr(wikipedia_search, "_INLINE_PASSAGES", 2)
  tool = wikipedia_search.WikipediaSearch(index_dir)

  async def gather():
    return await asyncio.gather(
      *(tool.execute({"query": f"Laos {i % 5}"}, CONTEXT) for i in range(40))
    )

  assert {result.output for result in asyncio.run(gather())} == {
    "Laos: Laos is a country in Asia. Its currency is the kip."
  }


def test_a_missing_index_or_silly_top_k_is_refused_at_once(tmp_path, index_dir):
  with pytest.raises(errors.UserError, match="there is none"):
    wikipedia_search.WikipediaSearch(tmp_path / "nowhere")
  with pytest.raises(errors.ConfigError, match="search_top_k is 0"):
    wikipedia_search.WikipediaSearch(index_dir, top_k=0)


def test_an_index_that_breaks_later_is_a_host_error(index_dir, monkeypatch):
  tool = wikipedia_search.WikipediaSearch(index_dir)

  def broken(query, top_k):
    raise IndexError("index 99 is out of bounds")

  monkeypatch.setattr(tool._index, "search", broken)
  with pytest.raises(errors.ToolHostError, match="out of bounds"):
    _execute(tool, "Laos")
  with pytest.raises(errors.ToolHostError, match="out of bounds"):
    asyncio.run(tool.check())


def test_check_finds_a_passage(tmp_path, index_dir, monkeypatch):
  tool = wikipedia_search.WikipediaSearch(index_dir)
  asyncio.run(tool.check())
  monkeypatch.setattr(tool._index, "search", lambda query, top_k: [])
  with pytest.raises(errors.ToolHostError, match="does not find"):
    asyncio.run(tool.check())
  wordless = bm25_index.Passage(id="0", title="?", text="!")
  bm25_index.build([wordless, *PASSAGES], tmp_path / "other")
  other = wikipedia_search.WikipediaSearch(tmp_path / "other")
  asyncio.run(other.check())
  asyncio.run(other.aclose())
