"""Recorded trajectories of runs: which files there are, and a fair share.

Flow: RUN_DIR/rollouts/**.jsonl -> lines counted -> if there are more than
asked for: files spread over the run, and from each whole groups in turns ->
records with their advantage, in reading order.

Lenient, like run_data.py: a line that is no JSON object is counted and left
out. Reads as little as it can, since recordings may be many gigabytes.
"""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from agentflow_jax.batching import advantages
from agentflow_jax.evaluation.report import pairs, run_data

TRAINING = "training"
_FOLDERS = (("evaluation", "evaluation"), ("train", TRAINING))
# Records taken from a file at a time, at least: about a group.
_ROUND = 8
# With fewer records than this from each, fewer files are opened.
_PER_FILE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFile:
  """One JSON lines file of a run; `split` is training or evaluation.

  Example: run 0, path runs/a/rollouts/train/iteration_000007.jsonl, split
  "training", 192 lines.
  """

  run: int  # index into the runs asked for
  path: pathlib.Path
  split: str
  lines: int

  @property
  def name(self) -> str:
    """From the run directory on, for messages."""
    return "/".join(self.path.parts[-3:])

  @property
  def when(self) -> str:
    """Of an evaluation: "before", "after", ..; "" in training."""
    return "" if self.split == TRAINING else self.path.stem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
  """One trajectory: its record, where it stood, and its advantage.

  The advantage is computed again from the rewards of the recorded group; None
  where there is no group or it is not whole.
  """

  file: RecordFile
  index: int  # among the file's records
  record: run_data.Record
  advantage: float | None = None


@dataclasses.dataclass(kw_only=True)
class Notes:
  """What the reader of the page is told about the files."""

  lines: list[str] = dataclasses.field(default_factory=list)

  def add(self, text: str) -> None:
    self.lines.append(text)


def find(run_dirs: Sequence[pathlib.Path], notes: Notes) -> list[RecordFile]:
  """The record files of runs that hold something, with their line counts."""
  found = []
  for run, run_dir in enumerate(run_dirs):
    for folder, split in _FOLDERS:
      for path in sorted((run_dir / "rollouts" / folder).glob("*.jsonl")):
        try:
          lines = _count_lines(path)
        except OSError as error:
          notes.add(f"{path.name} could not be opened: {error.strerror}.")
          continue
        if lines:
          found.append(RecordFile(run=run, path=path, split=split, lines=lines))
  return found


def take(
  files: Sequence[RecordFile],
  learners: Sequence[run_data.Record],
  limit: int,
  notes: Notes,
) -> Iterator[Recorded]:
  """At most `limit` trajectories, groups whole, a few from each file in turns.

  Args:
    files: as `find` gives them.
    learners: the `learner` section of each run's config, for the advantages.
    limit: at least one group is given, even if it is larger.
    notes: gets a line per file with lines that can not be read.
  """
  with contextlib.ExitStack() as stack:
    streams = []
    for file in _spread(files, limit):
      groups = _groups(file, learners[file.run], notes)
      stack.callback(groups.close)
      streams.append(groups)
    given = 0
    while streams and given < limit:
      for stream in list(streams):
        in_round = 0
        while given < limit and in_round < _ROUND:
          group = next(stream, None)
          if group is None:
            streams.remove(stream)
            break
          if given and given + len(group) > limit:
            return
          yield from group
          given += len(group)
          in_round += len(group)


def _spread(files: Sequence[RecordFile], limit: int) -> list[RecordFile]:
  """Evaluations first, then training files evenly over the run.

  No more of them than it takes, so that each gives a group or two.
  """
  most = max(1, limit // _PER_FILE)
  while most < len(files):
    chosen = _evenly(files, most)
    if sum(file.lines for file in chosen) >= limit:
      return chosen
    most *= 2
  return list(files)


def _evenly(files: Sequence[RecordFile], most: int) -> list[RecordFile]:
  first = [file for file in files if file.split != TRAINING][:most]
  rest = [file for file in files if file.split == TRAINING]
  room = most - len(first)
  if len(rest) > room:
    stride = (len(rest) - 1) / max(room - 1, 1)
    rest = [rest[round(index * stride)] for index in range(room)]
  return first + rest


def _groups(
  file: RecordFile, learner: run_data.Record, notes: Notes
) -> Generator[list[Recorded]]:
  """Neighbouring records of one task, with their advantages."""
  records = enumerate(_records(file, notes))
  for _, group in itertools.groupby(records, key=_task):
    members = list(group)
    values = _advantages([record for _, record in members], file, learner)
    yield [
      Recorded(file=file, index=index, record=record, advantage=value)
      for (index, record), value in zip(members, values, strict=True)
    ]


def _records(file: RecordFile, notes: Notes) -> Iterator[run_data.Record]:
  unreadable: list[int] = []
  try:
    with file.path.open("rb") as lines:
      for number, line in enumerate(lines, 1):
        if not line.strip():
          continue
        record = run_data.parse(line)
        if record is None:
          unreadable.append(number)
        else:
          yield record
  except OSError as error:
    notes.add(f"{file.name} could not be read: {error.strerror}.")
  finally:
    if unreadable:
      notes.add(
        f"{file.name}: unreadable and left out: {len(unreadable)} (the first "
        f"is line {unreadable[0]})."
      )


def _task(numbered: tuple[int, run_data.Record]) -> str | int:
  """What the members of a group share; a number of its own without an id."""
  index, record = numbered
  task = run_data.mapping(record.get("task"))
  return run_data.string(task.get("id") or task.get("question")) or index


def _advantages(
  members: Sequence[run_data.Record],
  file: RecordFile,
  learner: run_data.Record,
) -> list[float | None]:
  """As the learner computes them; None where that can not be done."""
  rewards = [run_data.number(record.get("reward")) for record in members]
  valid = [pairs.outcome(record) != pairs.UNSCORED for record in members]
  if file.split != TRAINING or sum(valid) < 2:
    return [None] * len(members)
  try:
    values = advantages.group_advantages(
      [0.0 if reward is None else reward for reward in rewards],
      valid,
      turns_G=[_trained_turns(record, learner) for record in members],
      **_options(learner),
    )
  except (ValueError, TypeError):  # settings of another version
    return [None] * len(members)
  return [
    float(value) if is_valid else None
    for value, is_valid in zip(values, valid, strict=True)
  ]


def _trained_turns(record: run_data.Record, learner: run_data.Record) -> int:
  """Completions with token ids of trained roles: the learner has rows there."""
  turns = map(run_data.mapping, run_data.sequence(record.get("turns")))
  calls = map(
    run_data.mapping,
    (
      *(
        call
        for turn in turns
        for call in run_data.sequence(turn.get("module_calls"))
      ),
      *run_data.sequence(record.get("final_calls")),
    ),
  )
  # Runs from before there was a choice trained the planner.
  roles = run_data.sequence(learner.get("trained_roles")) or ["planner"]
  return sum(
    call.get("role") in roles
    and bool(run_data.mapping(call.get("completion")).get("token_ids"))
    for call in calls
  )


def _options(learner: run_data.Record) -> Mapping[str, Any]:
  names = ("normalize_by_std", "statistics_over", "baseline")
  return {name: learner[name] for name in names if name in learner}


def _count_lines(path: pathlib.Path) -> int:
  """Line ends, and one more for a last line without."""
  lines, last = 0, b"\n"
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      lines += block.count(b"\n")
      last = block[-1:]
  return lines + (last != b"\n")
