"""The pages an answer rests on, as publishers of multi-hop sets write them.

They become what a line of a search result begins with: "Title:", or, where the
passage itself is known, "Title: Its first words".

  evidence           such beginnings
  supporting_facts   {"title": [..], ..} or [[title, sentence], ..] (HotpotQA,
                     2WikiMultihopQA)
  paragraphs         [{"title", "is_supporting"}, ..] (MuSiQue)
  gold_pids          ids of passages, whose file must be given
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentflow_jax.tasks.datasets import fields, raw_rows

_PIDS = "gold_pids"
_EVIDENCE = "evidence"
# Tells passages of one title apart; searches may show little more of a text.
_FIRST_CHARS = 60


def beginnings(row: fields.Row) -> tuple[str, ...]:
  """How the lines of a row's pages begin, each once; () if it gives none.

  Raises:
    ValueError: the column is there and of another form.
  """
  if row.get(_EVIDENCE) is not None:
    return fields.answers(row, _EVIDENCE)
  facts = row.get("supporting_facts")
  paragraphs = row.get("paragraphs")
  found: Any = ()
  name = "supporting_facts"
  if isinstance(facts, Mapping):
    found = facts.get("title")
  elif facts is not None:
    found = [_first(fact) for fact in _listed(facts, name)]
  elif paragraphs is not None:
    name = "paragraphs"
    found = [
      paragraph.get("title")
      for paragraph in _listed(paragraphs, name)
      if isinstance(paragraph, Mapping) and paragraph.get("is_supporting")
    ]
  titles = [fields.scalar(title, name) for title in _listed(found, name)]
  return tuple(f"{title}:" for title in dict.fromkeys(titles))


def beginning(title: str, text: str) -> str:
  """How the line of a passage begins.

  Example: "Laos: Laos is a country in Asia" of a longer text.
  """
  return f"{title}: {text[:_FIRST_CHARS].strip()}"


def name_pids(
  rows: Iterable[raw_rows.RawRow], beginning_of: Mapping[str, str]
) -> Iterator[raw_rows.RawRow]:
  """Rows whose `gold_pids` are given as beginnings in `evidence`.

  Args:
    rows: with or without the column.
    beginning_of: by passage id. An id that is not there makes the row bad.
  """
  for row in rows:
    pids = None if row.fields is None else row.fields.get(_PIDS)
    if row.fields is None or not isinstance(pids, list | tuple):
      yield row
      continue
    lost = [pid for pid in pids if pid not in beginning_of]
    if lost:
      yield raw_rows.RawRow(
        row.place, None, f"'{_PIDS}' names no passage: {lost[0]!r}"
      )
      continue
    named = [beginning_of[pid] for pid in pids]
    yield raw_rows.RawRow(row.place, {**row.fields, _EVIDENCE: named})


def without_unnamed(
  rows: Iterable[raw_rows.RawRow],
) -> Iterator[raw_rows.RawRow]:
  """Leaves out the rows that can be read and name no page."""
  for row in rows:
    try:
      named = row.fields is None or beginnings(row.fields)
    except ValueError:
      named = True  # bad, not unnamed: the format says so
    if named:
      yield row


def _listed(value: Any, name: str) -> list[Any] | tuple[Any, ...]:
  if not isinstance(value, list | tuple):
    raise ValueError(f"{name!r} has no list of titles")
  return value


def _first(fact: Any) -> Any:
  if not isinstance(fact, list | tuple) or not fact:
    raise ValueError("'supporting_facts' is no list of [title, sentence]")
  return fact[0]
