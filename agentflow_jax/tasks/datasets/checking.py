"""Rows -> tasks, with every bad row counted, placed and kept.

Flow: raw row -> format -> task, or a `BadRow` with "FILE:LINE" and a reason.
A row that needs a file beside it is neither: it is left out and counted.
More than 1 % bad rows (or no good one) refuse the whole source: then the
columns are not what was thought, or the file is not what it says.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.datasets import formats, raw_rows

MAX_BAD_SHARE = 0.01
_MAX_QUESTION_CHARS = 100_000
_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
  """Where a row is and why it is left out.

  Example: `BadRow(place="nq.jsonl:17", reason="'question' is empty")`.
  """

  place: str
  reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
  """The good tasks in their order, and the rows that are none."""

  tasks: Sequence[task_lib.Task]
  bad: Sequence[BadRow]
  places: Mapping[str, str]  # "FILE:LINE" by task id
  attachments: int = 0  # rows left out, because they need a file


def check(
  rows: Iterable[raw_rows.RawRow], read: formats.Format, name: str
) -> Checked:
  """Turns rows into tasks.

  Args:
    rows: of one source.
    read: the format of its rows.
    name: of the dataset, the start of every task id.

  Raises:
    UserError: above 1 % are bad, or there is no good row; the message has the
      first places and reasons.
  """
  tasks: dict[str, task_lib.Task] = {}
  places: dict[str, str] = {}
  bad: list[BadRow] = []
  attachments = 0
  for row in rows:
    try:
      task = _task(row, read, name)
      if task.id in tasks:
        raise ValueError(f"the id {task.id!r} is at {places[task.id]} already")
    except formats.NeedsAttachmentError:
      attachments += 1
      continue
    except ValueError as error:
      bad.append(BadRow(place=row.place, reason=str(error)))
      continue
    tasks[task.id] = task
    places[task.id] = row.place
  total = len(tasks) + len(bad)
  if not tasks or len(bad) > MAX_BAD_SHARE * total:
    shown = "; ".join(f"{row.place}: {row.reason}" for row in bad[:_SHOWN])
    raise errors.UserError(
      f"{len(bad)} of {total} rows are bad, at most {MAX_BAD_SHARE:.0%} may "
      f"be: {shown or 'there are no rows'}"
    )
  return Checked(
    tasks=list(tasks.values()),
    bad=bad,
    places=places,
    attachments=attachments,
  )


def attachments_note(count: int) -> str:
  """How reports say which questions are not there, or ""."""
  if not count:
    return ""
  rows = "row needs" if count == 1 else "rows need"
  left_out = "is" if count == 1 else "are"
  return f"{count} {rows} an attachment and {left_out} left out"


def _task(
  row: raw_rows.RawRow, read: formats.Format, name: str
) -> task_lib.Task:
  if row.fields is None:
    raise ValueError(row.problem)
  task = read(row.fields, name)
  if len(task.question) > _MAX_QUESTION_CHARS:
    raise ValueError(f"the question is longer than {_MAX_QUESTION_CHARS}")
  return task
