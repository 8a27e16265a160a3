"""The paper's ten benchmarks, read from AgentFlow's files.

Flow: a folder -> NAME.jsonl(.gz), NAME.json(.gz) or NAME/data/data.json ->
tasks whose id is the row's place in the source file, not its `pid`: MedQA's
pids occur twice, and a scorer that keys by them compares half of the answers
with another question's (the reference's defect D5). A question that is there
twice with different answers is refused.

GAIA's questions about a file are left out with their count, and places are
counted without them: of its 165 published rows, 127 are questions.

GPQA and GAIA may not be passed on; put your own copies into the folder.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.datasets import checking, formats, overlap, raw_rows

_ROW = "_row"  # kept by copies that hold a part of a file's rows


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
  """One benchmark: how to read it, and the rows the paper ran."""

  name: str
  title: str
  format: formats.Format
  rows: int  # in AgentFlow's file
  paper_rows: int  # the first N rows that its scripts evaluate


def _benchmark(
  name: str, title: str, form: str, rows: int, paper_rows: int
) -> Benchmark:
  return Benchmark(
    name=name,
    title=title,
    format=formats.FORMATS[form],
    rows=rows,
    paper_rows=paper_rows,
  )


BENCHMARKS: Mapping[str, Benchmark] = {
  benchmark.name: benchmark
  for benchmark in (
    _benchmark("bamboogle", "Bamboogle", "bamboogle", 125, 125),
    _benchmark("2wiki", "2WikiMultihopQA", "two_wiki", 200, 100),
    _benchmark("hotpotqa", "HotpotQA", "hotpotqa", 100, 100),
    _benchmark("musique", "MuSiQue", "musique", 200, 100),
    _benchmark("gaia", "GAIA (text only)", "gaia", 127, 127),
    _benchmark("aime24", "AIME 2024", "aime", 30, 30),
    _benchmark("amc23", "AMC 2023", "amc", 40, 40),
    _benchmark("gameof24", "Game of 24", "game24", 300, 100),
    _benchmark("gpqa", "GPQA", "gpqa", 300, 100),
    _benchmark("medqa", "MedQA", "medqa", 300, 100),
  )
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
  """A benchmark's questions, and how many are not among them.

  Example: GAIA as published is 127 tasks, `left_out` 38.
  """

  tasks: list[task_lib.Task]
  left_out: int = 0  # they need a file


def load(
  name: str, directory: pathlib.Path, *, paper_rows: bool = False
) -> list[task_lib.Task]:
  """The tasks of `load_counted`."""
  return load_counted(name, directory, paper_rows=paper_rows).tasks


def load_counted(
  name: str, directory: pathlib.Path, *, paper_rows: bool = False
) -> Loaded:
  """All questions of a benchmark, in the order of its file.

  Args:
    name: one of BENCHMARKS.
    directory: holds the benchmark's file.
    paper_rows: only the rows that the paper evaluates.

  Raises:
    UserError: no such benchmark or file, a bad row, or a question that is
      there twice with different answers.
  """
  if name not in BENCHMARKS:
    raise errors.UserError(
      f"there is no benchmark {name!r}; known are {', '.join(BENCHMARKS)}"
    )
  benchmark = BENCHMARKS[name]
  path = find_file(name, directory)
  tasks: dict[str, task_lib.Task] = {}
  attachments = 0
  for position, row in enumerate(_rows(path)):
    place = position - attachments
    if row.fields is not None and isinstance(row.fields.get(_ROW), int):
      place = row.fields[_ROW]
    if paper_rows and place >= benchmark.paper_rows:
      continue
    try:
      task = _task(row, benchmark, place)
    except formats.NeedsAttachmentError:
      attachments += 1
      continue
    except ValueError as error:
      # A benchmark of fewer questions is another benchmark.
      raise errors.UserError(f"{row.place}: {error}") from error
    if task.id in tasks:
      raise errors.UserError(f"{row.place}: row {place} is there twice")
    tasks[task.id] = task
  if not tasks:
    raise errors.UserError(f"{path} has no questions")
  _refuse_contradictions(path, list(tasks.values()))
  expected = benchmark.paper_rows if paper_rows else benchmark.rows
  _warn_of_count(path, len(tasks), expected, attachments)
  return Loaded(tasks=list(tasks.values()), left_out=attachments)


def find_file(name: str, directory: pathlib.Path) -> pathlib.Path:
  """The file of a benchmark.

  Raises:
    UserError: there is none; the message says what was looked for.
  """
  names = [
    f"{name}{suffix}" for suffix in (".jsonl.gz", ".jsonl", ".json.gz", ".json")
  ]
  nested = str(pathlib.PurePath(name, "data", "data.json"))
  for candidate in (*names, nested):
    if (directory / candidate).is_file():
      return directory / candidate
  raise errors.UserError(
    f"{directory} has no {name}: need {', '.join(names)} or {nested}"
  )


def _rows(path: pathlib.Path) -> Sequence[raw_rows.RawRow]:
  return list(raw_rows.read(path))


def _task(
  row: raw_rows.RawRow, benchmark: Benchmark, place: int
) -> task_lib.Task:
  if row.fields is None:
    raise ValueError(row.problem)
  # Its own id is left out, so that nothing can depend on it.
  fields = {
    key: value
    for key, value in row.fields.items()
    if key not in ("id", "_id", "pid", "idx", "task_id")
  }
  task = benchmark.format({**fields, "id": f"{place:04d}"}, benchmark.name)
  return dataclasses.replace(task, data_source=benchmark.name)


def _warn_of_count(
  path: pathlib.Path, count: int, expected: int, attachments: int
) -> None:
  if attachments:
    logging.warning(
      "%s: %s; scores are of the other %d questions",
      path,
      checking.attachments_note(attachments),
      count,
    )
  if count != expected:
    logging.warning(
      "%s has %d questions, the published file %d", path, count, expected
    )


def _refuse_contradictions(
  path: pathlib.Path, tasks: Sequence[task_lib.Task]
) -> None:
  seen: dict[str, task_lib.Task] = {}
  repeated = 0
  for task in tasks:
    other = seen.setdefault(overlap.normalise(task.question), task)
    if other is task:
      continue
    repeated += 1
    if set(other.answers).isdisjoint(task.answers):
      raise errors.UserError(
        f"{path}: {other.id} and {task.id} are one question with different "
        "answers"
      )
  if repeated:
    logging.warning("%s repeats %d questions", path, repeated)
