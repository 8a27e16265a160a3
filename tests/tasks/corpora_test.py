"""Corpora: passages out of JSONL and of WikiExtractor's folders."""

import json

import pytest

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import corpora
from agentflow_jax.tools import bm25_index


def _write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_passages_of_a_file_become_a_searchable_index(tmp_path):
  path = _write(
    tmp_path / "c.jsonl",
    [
      {"id": "p1", "title": "Laos", "text": "The currency is the kip."},
      {"id": "p2", "contents": '"Japan"\nThe currency is the yen.'},
      {"id": 3, "title": None, "text": "Nothing of note."},
    ],
  )
  found = list(corpora.passages(path))
  assert found[0] == ("p1", "Laos", "The currency is the kip.")
  assert found[1] == ("p2", "Japan", "The currency is the yen.")
  assert found[2] == ("3", "", "Nothing of note.")
  bm25_index.build(
    (bm25_index.Passage(id=i, title=t, text=x) for i, t, x in found),
    tmp_path / "index",
  )
  index = bm25_index.Bm25Index.open(tmp_path / "index")
  assert index.search("currency of Japan", 1)[0].passage.id == "p2"


def test_a_wikipedia_extract_is_cut_into_passages(tmp_path):
  article = {"id": "12", "url": "u", "title": "T", "text": "a b c d e f g"}
  _write(tmp_path / "AA" / "wiki_00", [article])
  _write(tmp_path / "AB" / "wiki_01", [{**article, "id": "13"}])
  found = list(corpora.passages(tmp_path, chunk_words=3))
  assert [(i, x) for i, _, x in found[:3]] == [
    ("12-0", "a b c"),
    ("12-1", "d e f"),
    ("12-2", "g"),
  ]
  assert len(found) == 6


def test_bad_rows_are_counted_and_refused_above_one_per_cent(tmp_path):
  good = [{"id": str(n), "title": "t", "text": "x"} for n in range(200)]
  path = _write(tmp_path / "c.jsonl", [{"id": "x"}, *good])
  assert len(list(corpora.passages(path))) == 200
  path = _write(tmp_path / "c.jsonl", [{"id": "x"}, {"text": "x"}, *good[:150]])
  with pytest.raises(errors.UserError, match=r"2 of 152 .*l:1: no field"):
    list(corpora.passages(path))
  with pytest.raises(errors.UserError, match="there are none"):
    list(corpora.passages(_write(tmp_path / "c.jsonl", [])))
