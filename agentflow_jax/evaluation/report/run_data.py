"""What a run directory says, read leniently: RUN_DIR -> RunData.

Every file is optional and every field may be missing or of the wrong type,
because a report is wanted most of a run that went wrong. What could not be
read is counted in `RunData.notes`, which the page shows.

Keeps of each recorded trajectory only what the page can show; module calls
with their prompts and token ids are dropped while reading.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from agentflow_jax.core import messages as messages_lib

Record = Mapping[str, Any]

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
CONFIG = "config.json"
BEFORE = "rollouts/evaluation/before.jsonl"
AFTER = "rollouts/evaluation/after.jsonl"

_LARGEST = 1e100

_TRAJECTORY_FIELDS = (
  "task",
  "member",
  "answer",
  "stop_reason",
  "reward",
  "failure",
  "duration_s",
)
_TURN_FIELDS = ("index", "decision", "command", "calls", "results", "verdict")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
  """One run as the report sees it.

  `metrics` is sorted by iteration with one row per iteration; `evaluations`
  keeps the file's order. `before` and `after` are the recorded evaluation
  trajectories in file order. A missing file is an empty tuple (`config`:
  None) and its name is in `missing`.
  """

  name: str
  config: Record | None
  metrics: tuple[Record, ...]
  evaluations: tuple[Record, ...]
  before: tuple[Record, ...]
  after: tuple[Record, ...]
  missing: frozenset[str] = frozenset()
  notes: tuple[str, ...] = ()

  def evaluation(self, *when: str) -> Record | None:
    """The last one written of those "before", "during" or "after" training."""
    found = [e for e in self.evaluations if e.get("when") in when]
    return found[-1] if found else None

  def families(self) -> tuple[str, ...]:
    """Question families in order of first appearance."""
    names: dict[str, None] = {}
    for evaluation in self.evaluations:
      names.update(dict.fromkeys(mapping(evaluation.get("families"))))
    for row in self.metrics:
      names.update(dict.fromkeys(under(row, "reward/")))
    return tuple(names)


def number(value: Any) -> float | None:
  """A float that can be drawn; None for "nan", text, null, booleans.

  Beyond +-1e100 sums and scales of otherwise fine values would overflow.
  """
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  # Compared before the conversion: an int may be too large for a float.
  return float(value) if -_LARGEST <= value <= _LARGEST else None


def iteration(record: Record) -> float | None:
  """The record's iteration, None where it has none (or an absurd one)."""
  value = number(record.get("iteration"))
  return value if value is not None and abs(value) < 1e12 else None


def mapping(value: Any) -> Record:
  """`value` if it is a JSON object, else an empty one."""
  return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
  """`value` if it is a JSON array, else an empty one."""
  return value if isinstance(value, list) else []


def string(value: Any) -> str:
  """`value` as text: strings as they are, null as "", others as JSON."""
  if value is None:
    return ""
  return value if isinstance(value, str) else literal(value)


def literal(value: Any, indent: int | None = None) -> str:
  """`value` as JSON a person can read."""
  try:
    return json.dumps(value, ensure_ascii=False, indent=indent)
  except RecursionError:
    return "(nested too deeply to show)"


def under(row: Record, prefix: str) -> dict[str, Any]:
  """The entries of `row` whose name starts with `prefix`, prefix cut off.

  Example: `under({"reward/one_hop": 1.0, "lr": 2.0}, "reward/")` is
  `{"one_hop": 1.0}`.
  """
  return {
    name[len(prefix) :]: value
    for name, value in row.items()
    if name.startswith(prefix) and len(name) > len(prefix)
  }


def load(run_dir: pathlib.Path) -> RunData:
  """Reads everything the report needs; never raises on what a file holds."""
  reader = _Reader(run_dir)
  return RunData(
    name=run_dir.resolve().name,
    config=reader.config(),
    metrics=reader.metrics(),
    evaluations=reader.evaluations(),
    before=reader.trajectories(BEFORE),
    after=reader.trajectories(AFTER),
    missing=frozenset(reader.missing),
    notes=tuple(reader.notes),
  )


class _Reader:
  """Reads the files of one run and gathers what to tell about them."""

  def __init__(self, run_dir: pathlib.Path):
    self._run_dir = run_dir
    self.missing: list[str] = []
    self.notes: list[str] = []

  def config(self) -> Record | None:
    file = self._open(CONFIG)
    if file is None:
      return None
    with file:
      value = parse(file.read())
    if value is None:
      self.notes.append(f"{CONFIG} is not a JSON object.")
    return value

  def metrics(self) -> tuple[Record, ...]:
    rows, unnumbered, repeated = {}, 0, 0
    for row in self._lines(METRICS):
      index = iteration(row)
      if index is None:
        unnumbered += 1
        continue
      repeated += index in rows
      rows[index] = row
    if unnumbered:
      self.notes.append(
        f"{METRICS}: without an iteration and left out: {unnumbered}."
      )
    if repeated:
      self.notes.append(
        f"{METRICS}: written again, the last counts: {repeated}."
      )
    return tuple(rows[index] for index in sorted(rows))

  def evaluations(self) -> tuple[Record, ...]:
    return tuple(self._lines(EVALUATIONS))

  def trajectories(self, name: str) -> tuple[Record, ...]:
    return tuple(_slim(record) for record in self._lines(name))

  def _open(self, name: str) -> BinaryIO | None:
    try:
      return (self._run_dir / name).open("rb")
    except FileNotFoundError:
      self.missing.append(name)
    except OSError as error:
      self.missing.append(name)
      self.notes.append(f"{name} could not be opened: {error.strerror}.")
    return None

  def _lines(self, name: str) -> Iterator[Record]:
    file = self._open(name)
    if file is None:
      return
    unreadable: list[int] = []
    with file:
      for index, line in enumerate(file, 1):
        if not line.strip():
          continue
        record = parse(line)
        if record is None:
          unreadable.append(index)
        else:
          yield record
    if unreadable:
      self.notes.append(
        f"{name}: unreadable and left out: {len(unreadable)} (the first is "
        f"line {unreadable[0]})."
      )


def parse(content: bytes) -> Record | None:
  """A JSON object, or None if it is none."""
  try:
    value = json.loads(content.decode("utf-8", errors="replace"))
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, Mapping) else None


def _slim(record: Record) -> Record:
  """The fields the page shows; a planner's words only if no plan was read."""
  slim = {name: record.get(name) for name in _TRAJECTORY_FIELDS}
  slim["turns"] = []
  for turn in map(mapping, sequence(record.get("turns"))):
    kept = {name: turn.get(name) for name in _TURN_FIELDS}
    if "tool_name" not in mapping(turn.get("decision")):
      kept["planner_text"] = _planner_text(turn)
    slim["turns"].append(kept)
  return slim


def _planner_text(turn: Record) -> str:
  for call in map(mapping, sequence(turn.get("module_calls"))):
    if call.get("role") in messages_lib.DECIDING:
      return string(mapping(call.get("completion")).get("text"))
  return ""
