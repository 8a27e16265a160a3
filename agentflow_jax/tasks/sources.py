"""Where tasks come from: one string in the config, one TaskSource.

| spec | what it opens |
|---|---|
| `worldfacts` | the embedded world, written to `data_dir` on first use |
| `jsonl:PATH` | your questions, one JSON object per line (`.gz` too) |
| `tfds:NAME` | what launch/prepare_data.py wrote to `data_dir` |
| `mix:SPEC@WEIGHT@LIMIT,..` | several of these (mixture.py) |

A line of a file needs `id`, `question` and `answers` (a text or a list of
texts); `data_source`, `scorer`, `family`, `options` and `evidence` may be
given, other fields are left alone. A bad line is an error with its place, never
skipped.

What this does not do: shuffle or repeat (order.py), score (rewards).
"""

import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentflow_jax.core import errors, protocols, task_specs
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks import mixture
from agentflow_jax.tasks.datasets import store

WORLDFACTS = task_specs.WORLDFACTS
JSONL = task_specs.JSONL
TRAIN = "train"
HELD_OUT = "held_out"
SPLITS = (TRAIN, HELD_OUT)

_OPTIONAL_FIELDS = ("data_source", "scorer", "family")


def open_source(
  spec: str, data_dir: str | os.PathLike[str], split: str
) -> protocols.TaskSource:
  """Opens the tasks that `spec` names.

  Args:
    spec: one of the above.
    data_dir: where prepared datasets are kept; made if it is needed.
    split: "train" or "held_out"; a file is the split it is used for.

  Raises:
    ConfigError: `spec` or `split` is none of the above.
    UserError: the file is missing, or a line of it is bad.
  """
  if split not in SPLITS:
    raise errors.ConfigError(
      f"there is no split {split!r}; the splits are {', '.join(SPLITS)}"
    )
  try:
    parts = task_specs.parse(spec)
  except ValueError as error:
    raise errors.ConfigError(
      f"no tasks are called {spec!r}: {error}"
    ) from error
  if not spec.startswith(task_specs.MIX):
    return _open_one(spec, data_dir, split)
  return mixture.Mixture(
    [
      mixture.Part(
        label=_label(part.spec),
        source=_open_one(part.spec, data_dir, split),
        weight=part.weight,
        limit=part.limit,
      )
      for part in parts
    ]
  )


def scorers_of(source: protocols.TaskSource) -> set[str]:
  """Every scorer that a task of `source` names."""
  if isinstance(source, mixture.Mixture):
    return set().union(*map(scorers_of, source.sources))
  if isinstance(source, RecordSource) and source.scorers:
    return set(source.scorers)
  return {source[index].scorer for index in range(len(source))}


def left_out_of(source: protocols.TaskSource) -> int:
  """Questions that are not in `source` because they need a file."""
  if isinstance(source, mixture.Mixture):
    return sum(map(left_out_of, source.sources))
  return source.left_out if isinstance(source, RecordSource) else 0


def _open_one(
  spec: str, data_dir: str | os.PathLike[str], split: str
) -> protocols.TaskSource:
  if spec == WORLDFACTS:
    # Lazily, because it imports tensorflow_datasets.
    from agentflow_jax.tasks.worldfacts import builder, questions

    # tfds wraps its methods without types.
    dataset: Any = builder.prepare(data_dir)
    return RecordSource(
      dataset.as_data_source(split=split),
      # Known without reading thousands of records.
      scorers=sorted({task.scorer for task in questions.tasks(split)}),
    )
  if spec.startswith(task_specs.TFDS):
    name = spec.removeprefix(task_specs.TFDS)
    about = store.read_about(data_dir, name)
    return RecordSource(
      store.open_records(data_dir, name),
      scorers=about["scorers"],
      left_out=about.get("attachments", 0),  # older ones did not count them
    )
  return read_jsonl(spec.removeprefix(JSONL))


def _label(spec: str) -> str:
  """A part's name in ids: the dataset's, or the file's with its folder."""
  return spec.removeprefix(task_specs.TFDS).removeprefix(JSONL)


class RecordSource:
  """Tasks behind a random-access sequence of TFDS records.

  Implements core TaskSource; a record is read when it is asked for.
  """

  def __init__(
    self,
    records: Sequence[Mapping[str, Any]],
    scorers: Sequence[str] = (),
    left_out: int = 0,
  ):
    self._records = records
    # Questions of the published file that need an attachment.
    self.left_out = left_out
    # All that occur, if the writer noted them down.
    self.scorers = tuple(scorers)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> task_lib.Task:
    record = self._records[index]
    texts = {
      name: record[name].decode("utf-8")
      for name in ("id", "question", *_OPTIONAL_FIELDS)
    }
    return task_lib.Task(
      answers=_decoded(record["answers"]),
      options=_decoded(record.get("options", ())),
      evidence=_decoded(record.get("evidence", ())),
      **texts,
    )


def _decoded(texts: Sequence[bytes]) -> tuple[str, ...]:
  return tuple(text.decode("utf-8") for text in texts)


class ListSource:
  """Tasks in memory; implements core TaskSource."""

  def __init__(self, tasks: Sequence[task_lib.Task]):
    self._tasks = tuple(tasks)

  def __len__(self) -> int:
    return len(self._tasks)

  def __getitem__(self, index: int) -> task_lib.Task:
    return self._tasks[index]


def read_jsonl(path: str | os.PathLike[str]) -> ListSource:
  """The tasks of a JSONL file, in its order; empty lines are passed over.

  Raises:
    UserError: with "FILE:LINE:", when a line is no task or repeats an id; with
      the file, when it can not be read or has no task.
  """
  path = pathlib.Path(path)
  tasks: dict[str, task_lib.Task] = {}
  lines: dict[str, int] = {}
  for number, line in _numbered_lines(path):
    try:
      task = _task(line)
    except ValueError as error:
      raise errors.UserError(f"{path}:{number}: {error}") from error
    if task.id in tasks:
      raise errors.UserError(
        f"{path}:{number}: the id {task.id!r} was used in line {lines[task.id]}"
      )
    tasks[task.id] = task
    lines[task.id] = number
  if not tasks:
    raise errors.UserError(f"{path} has no questions")
  return ListSource(list(tasks.values()))


def _numbered_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """(line number from 1, text) of the lines that are not empty."""
  opener = gzip.open if path.suffix == ".gz" else open
  try:
    with opener(path, "rt", encoding="utf-8") as file:
      for number, line in enumerate(file, start=1):
        if line.strip():
          yield number, line
  except FileNotFoundError as error:
    raise errors.UserError(f"there is no file {path}") from error
  except (OSError, EOFError, zlib.error) as error:
    raise errors.UserError(f"{path} can not be read: {error}") from error
  except UnicodeDecodeError as error:
    raise errors.UserError(f"{path} is not UTF-8 text: {error}") from error


def _task(line: str) -> task_lib.Task:
  """A task from one line; ValueError says what is wrong with it."""
  try:
    row = json.loads(line)
  except json.JSONDecodeError as error:
    raise ValueError(f"not JSON: {error}") from error
  if not isinstance(row, dict):
    raise ValueError("not a JSON object")
  answers = row.get("answers")
  if isinstance(answers, str):
    answers = [answers]
  if not isinstance(answers, list) or not answers:
    raise ValueError("'answers' must be a text or a list of texts")
  given = {name: row[name] for name in _OPTIONAL_FIELDS if name in row}
  fields = {"data_source": "jsonl", **given}
  return task_lib.Task(
    id=_text(row.get("id"), "id"),
    question=_text(row.get("question"), "question"),
    answers=tuple(_text(answer, "answers") for answer in answers),
    options=_texts(row, "options"),
    evidence=_texts(row, "evidence"),
    **{name: _text(value, name) for name, value in fields.items()},
  )


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
  values = row.get(name, [])
  if not isinstance(values, list):
    raise ValueError(f"{name!r} must be a list of texts")
  return tuple(_text(value, name) for value in values)


def _text(value: Any, name: str) -> str:
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f"{name!r} must be a text that is not empty")
  return value
