"""Passages to search, from the files people have.

Flow: JSONL rows with `id`, `title`, `text` (or `contents`, whose first line
is the title), or the folder that WikiExtractor writes from a Wikipedia dump
-> passages, cut to a number of words if asked.

A row without a text or an id is left out and counted; above 1 % the corpus is
refused. Passages are made one by one: a corpus need not fit in memory here.
"""

import pathlib
from collections.abc import Iterator

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import checking, fields, raw_rows

_SHOWN = 3
# Before that many rows, a share says nothing.
_EARLY_ROWS = 1000


def passages(
  source: pathlib.Path, *, chunk_words: int = 0
) -> Iterator[tuple[str, str, str]]:
  """(id, title, text) of each passage.

  Args:
    source: a file or a folder.
    chunk_words: longer texts become several passages of so many words, with
      "-0", "-1", ... behind the id; 0 keeps texts as they are.

  Raises:
    UserError: a file is missing or damaged, or above 1 % of the rows are bad.
  """
  bad: list[checking.BadRow] = []
  total = 0
  for row in raw_rows.read(source):
    total += 1
    try:
      passage_id, title, text = _passage(row)
    except ValueError as error:
      bad.append(checking.BadRow(place=row.place, reason=str(error)))
      if total >= _EARLY_ROWS:
        _check(bad, total)
      continue
    if not chunk_words:
      yield passage_id, title, text
      continue
    words = text.split()
    for number, start in enumerate(range(0, len(words), chunk_words)):
      yield (
        f"{passage_id}-{number}",
        title,
        " ".join(words[start : start + chunk_words]),
      )
  _check(bad, total)
  if bad:
    logging.warning(
      "%d of %d rows left out, the first is %s: %s",
      len(bad),
      total,
      bad[0].place,
      bad[0].reason,
    )


def _passage(row: raw_rows.RawRow) -> tuple[str, str, str]:
  if row.fields is None:
    raise ValueError(row.problem)
  passage_id = fields.identifier(row.fields, "id", "_id", "docid", "pid")
  if not passage_id:
    raise ValueError("no id")
  if row.fields.get("contents") is not None and "text" not in row.fields:
    title, _, text = fields.text(row.fields, "contents").partition("\n")
    return passage_id, title.strip().strip('"'), text.strip() or title
  title = row.fields.get("title") or ""
  if not isinstance(title, str):
    raise ValueError("'title' is no text")
  return passage_id, title, fields.text(row.fields, "text")


def _check(bad: list[checking.BadRow], total: int) -> None:
  if total and len(bad) <= checking.MAX_BAD_SHARE * total:
    return
  shown = "; ".join(f"{row.place}: {row.reason}" for row in bad[:_SHOWN])
  raise errors.UserError(
    f"{len(bad)} of {total} passages are bad, at most "
    f"{checking.MAX_BAD_SHARE:.0%} may be: {shown or 'there are none'}"
  )
