"""The agent suite measures what it says, small."""

import functools
import json
import math

import pytest

from agentflow_jax.benchmarks import agent_suite, retriever_load, suites
from agentflow_jax.core import errors
from agentflow_jax.tools import bubblewrap_sandbox

_SIZES = agent_suite.Sizes(episodes=32, concurrent=32, sandbox_runs=3)


def test_every_number_is_there():
  found = agent_suite.run(_SIZES)
  assert set(found) >= {
    "turns_per_s",
    "episodes_per_s",
    "loop_lag_p99_ms",
    "monty_p50_ms",
    "bubblewrap_p50_ms",
    "leaked_processes",
    "leaked_fds",
  }
  for name, value in found.items():
    if value is not None:
      assert math.isfinite(value) and value >= 0, name
  assert found["turns_per_s_min"] <= found["turns_per_s"]
  assert found["turns_per_s"] <= found["turns_per_s_max"]
  assert found["turns_per_s"] == pytest.approx(3 * found["episodes_per_s"])
  assert found["leaked_processes"] == found["leaked_fds"] == 0


_LINE = {
  "suite": str,
  "turns_per_s": float,
  "loop_lag_p99_ms": float,
  "monty_p50_ms": float,
  "bubblewrap_p50_ms": float,
  "retriever_p99_ms": float,
  "retriever_errors": int,
  "leaked_processes": int,
  "leaked_fds": int,
}


@pytest.fixture
def small(monkeypatch):
  """Sizes of seconds."""
  pytest.importorskip("httptools")
  monkeypatch.setattr(
    agent_suite,
    "Sizes",
    functools.partial(
      agent_suite.Sizes, episodes=32, concurrent=32, sandbox_runs=3
    ),
  )
  load = retriever_load.Load(clients=8, queries_each=2)
  monkeypatch.setattr(retriever_load, "Load", lambda: load)


def _run(passages=""):
  return suites.SUITES["agent"](
    suites.Options(models=(), peers=(), rounds=1, passages=passages)
  ).text()


def _has_jail():
  try:
    bubblewrap_sandbox.BubblewrapSandbox()
  except errors.UserError:
    return False
  return True


@pytest.mark.slow
def test_the_suite_ends_with_one_line_of_json(small, monkeypatch, tmp_path):
  monkeypatch.setattr(suites, "PASSAGES", tmp_path / "none")
  text = _run()
  assert "retrieval server serves: the pages of worldfacts" in text
  *_, last = text.splitlines()
  figures = json.loads(last)
  assert set(figures) >= set(_LINE)
  assert figures["suite"] == "agent"
  for name, kind in _LINE.items():
    if name == "bubblewrap_p50_ms" and not _has_jail():
      assert figures[name] is None
    else:
      assert type(figures[name]) is kind, name
    if kind is float and figures[name] is not None:
      assert figures[name] > 0, name
  for name in ("retriever_errors", "leaked_processes", "leaked_fds"):
    assert figures[name] == 0, name


@pytest.fixture
def searched(monkeypatch):
  """What the retrieval server was given; nothing is measured."""
  found = []

  def load(passages):
    found.append(passages)
    return {}

  monkeypatch.setattr(agent_suite, "run", lambda sizes: {"turns_per_s": 1.0})
  monkeypatch.setattr(retriever_load, "run", load)
  return found


def test_the_passages_beside_the_repository_are_the_default(
  searched, monkeypatch, tmp_path
):
  corpus = tmp_path / "corpus.jsonl.gz"
  monkeypatch.setattr(suites, "PASSAGES", corpus)
  assert "serves: the pages of worldfacts" in _run()
  corpus.touch()
  assert f"serves: {corpus}" in _run()
  assert "serves: mine.jsonl" in _run("mine.jsonl")
  assert searched == ["", str(corpus), "mine.jsonl"]


def test_where_the_passages_would_be(request):
  root = request.config.rootpath
  assert suites.PASSAGES.parents[3] == root.parent
  assert suites.PASSAGES.parent.parts[-3:] == (
    "shared",
    "data",
    "wiki_passages",
  )
