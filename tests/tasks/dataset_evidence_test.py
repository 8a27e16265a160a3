"""Supporting pages, as each publisher writes them and as ids of passages."""

import pytest

from agentflow_jax.tasks.datasets import evidence, formats, raw_rows

_ROW = {"id": "1", "question": "Who?", "answer": "A"}


@pytest.mark.parametrize(
  ("columns", "expected"),
  [
    ({}, ()),
    ({"evidence": ["Laos: A country"]}, ("Laos: A country",)),
    (
      {"supporting_facts": {"title": ["B", "A", "B"], "sent_id": [0, 1, 2]}},
      ("B:", "A:"),
    ),
    ({"supporting_facts": [["A", 0], ["B", 1], ["A", 2]]}, ("A:", "B:")),
    (
      {
        "paragraphs": [
          {"title": "A", "is_supporting": True},
          {"title": "B", "is_supporting": False},
        ]
      },
      ("A:",),
    ),
  ],
)
@pytest.mark.parametrize("name", ["hotpotqa", "two_wiki", "musique"])
def test_the_columns_of_publishers(name, columns, expected):
  task = formats.FORMATS[name]({**_ROW, **columns}, name)
  assert task.evidence == expected


@pytest.mark.parametrize(
  "columns",
  [
    {"supporting_facts": {"title": "A"}},
    {"supporting_facts": ["A"]},
    {"supporting_facts": [[None, 1]]},
    {"paragraphs": "A"},
    {"paragraphs": [{"is_supporting": True}]},
    {"evidence": []},
  ],
)
def test_other_forms_are_bad_rows(columns):
  with pytest.raises(ValueError, match="supporting_facts|paragraphs|evidence"):
    evidence.beginnings({**_ROW, **columns})


def test_ids_become_the_beginnings_of_their_passages():
  begins = {"p1": evidence.beginning("Laos", "Laos is a country. " * 9)}
  rows = [
    raw_rows.RawRow("f:1", {**_ROW, "gold_pids": ["p1"]}),
    raw_rows.RawRow("f:2", {**_ROW, "gold_pids": ["p1", "p2"]}),
    raw_rows.RawRow("f:3", _ROW),
    raw_rows.RawRow("f:4", None, "broken"),
  ]
  named, lost, without, broken = evidence.name_pids(rows, begins)
  begin = "Laos: Laos is a country. Laos is a country. Laos is a country. Lao"
  assert named.fields["evidence"] == [begin]
  assert lost.fields is None and "'p2'" in lost.problem
  assert without.fields == _ROW
  assert broken.problem == "broken"


def test_rows_that_name_no_page_are_left_out_and_bad_ones_are_not():
  rows = [
    raw_rows.RawRow("f:1", {**_ROW, "evidence": ["A:"]}),
    raw_rows.RawRow("f:2", _ROW),
    raw_rows.RawRow("f:3", {**_ROW, "paragraphs": 1}),
    raw_rows.RawRow("f:4", None, "broken"),
  ]
  kept = [row.place for row in evidence.without_unnamed(rows)]
  assert kept == ["f:1", "f:3", "f:4"]


def test_another_scorer_needs_what_it_is_about():
  read = formats.with_scorer(formats.FORMATS["two_wiki"], "evidence")
  task = read({**_ROW, "evidence": ["A:"]}, "two_wiki")
  assert (task.scorer, task.evidence) == ("evidence", ("A:",))
  with pytest.raises(ValueError, match="no evidence for the scorer 'evidence'"):
    read(_ROW, "two_wiki")
  with pytest.raises(ValueError, match="--passages of gold_pids"):
    read({**_ROW, "gold_pids": ["p1"]}, "two_wiki")
  exact = formats.with_scorer(formats.FORMATS["two_wiki"], "exact_match")
  assert exact(_ROW, "two_wiki").scorer == "exact_match"
