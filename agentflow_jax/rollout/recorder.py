"""Trajectories <-> JSON lines that a person can read.

Flow: Trajectory -> `to_record` -> redaction -> one line of a file that gets
its name only when it is complete; back with `read_trajectories`. The round
trip is exact, floats included (record_codec.py).

Files are read strictly: the first line that is not a record is an error with
its number. This is no log of a running iteration: a killed one leaves only
`NAME.partial`, which the next attempt overwrites.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agentflow_jax.core import errors, redaction
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import record_codec

Trajectory = trajectory_lib.Trajectory
Redact = Callable[[str], str]
# What a reader looks for comes first in the line.
_FIRST = ("step", "reward", "stop_reason", "answer", "task")
_NOT_TRAJECTORY = ("step", "short", "redacted")
_CALLS = ("module_calls", "final_calls")
_TOKEN_FIELDS = ("token_ids", "logprobs", "prompt_token_ids")


def to_record(
  trajectory: Trajectory, *, step: int, full: bool = True
) -> dict[str, Any]:
  """A JSON-able dict.

  Args:
    trajectory: any, masked or not.
    step: the iteration it belongs to.
    full: False leaves out the module calls (prompts, token ids, logprobs),
      which are most of the bytes.
  """
  record = record_codec.encode(trajectory) | {"step": step}
  if not full:
    record = _without_calls(record)
  first = {name: record[name] for name in _FIRST}
  return first | record


def from_record(record: Mapping[str, Any]) -> Trajectory:
  """Inverse of `to_record`; a short record has no module calls.

  Raises:
    ValueError: a field is missing, unknown, or of the wrong type.
  """
  fields = {k: v for k, v in record.items() if k not in _NOT_TRAJECTORY}
  if record.get("short") and isinstance(record.get("turns"), list):
    fields["turns"] = [
      turn | {"module_calls": []} if isinstance(turn, dict) else turn
      for turn in record["turns"]
    ]
  return record_codec.decode(Trajectory, fields, "record")


def iteration_path(run_dir: str | os.PathLike, iteration: int) -> pathlib.Path:
  """Where the training rollouts of an iteration are recorded."""
  directory = pathlib.Path(run_dir) / "rollouts" / "train"
  return directory / f"iteration_{iteration:06d}.jsonl"


@contextlib.contextmanager
def record_file(
  path: str | os.PathLike,
  *,
  step: int,
  full: bool = True,
  redact: Redact | None = None,
) -> Iterator[Callable[[Trajectory], None]]:
  """Yields a function that writes one trajectory.

  Lines go to `PATH.partial` as they come, and the file gets its name
  when the block ends without an exception, so `path` is whole or absent.

  Args:
    path: e.g. `iteration_path(run_dir, 12)`; an older file is replaced.
    step: as in `to_record`.
    full: as in `to_record`.
    redact: applied to every text; None hides the environment's secrets.
  """
  path = pathlib.Path(path)
  hide = redaction.Redactor.from_environment() if redact is None else redact
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  with open(partial, "wb") as file:

    def write(trajectory: Trajectory) -> None:
      file.write(to_line(trajectory, step=step, full=full, redact=hide))
      file.flush()

    yield write
    os.fsync(file.fileno())
  os.replace(partial, path)


def record_all(
  path: str | os.PathLike, step: int, trajectories: Iterable[Trajectory]
) -> None:
  """Writes trajectories as one file, see `record_file`."""
  with record_file(path, step=step) as write:
    for trajectory in trajectories:
      write(trajectory)


def to_line(
  trajectory: Trajectory,
  *,
  step: int,
  full: bool = True,
  redact: Redact | None = None,
) -> bytes:
  """One line of a record file; the arguments are those of `record_file`."""
  hide = redaction.Redactor.from_environment() if redact is None else redact
  return _line(redact_record(to_record(trajectory, step=step, full=full), hide))


def redact_record(record: dict[str, Any], redact: Redact) -> dict[str, Any]:
  """Applies `redact` to every text of a record.

  Token ids spell out the same text, so a record in which anything was hidden
  loses them, and says so with `"redacted": true`.
  """
  if isinstance(redact, redaction.Redactor) and redact.idle:
    return record
  clean = _map_text(record, redact)
  if clean == record:
    return record
  return _without_tokens(clean) | {"redacted": True}


def find_files(paths: Sequence[str]) -> list[pathlib.Path]:
  """Record files: those named, those in folders, a run's training rollouts.

  Raises:
    UserError: a path does not exist or holds no *.jsonl.
  """
  found = []
  for path in map(pathlib.Path, paths):
    rollouts = path / "rollouts" / "train"
    folder = rollouts if rollouts.is_dir() else path
    files = [path] if path.is_file() else sorted(folder.glob("*.jsonl"))
    if not files:
      raise errors.UserError(f"{path} is no record file and holds none")
    found += files
  return found


def read_records(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """The lines of a record file, parsed.

  Raises:
    UserError: names the file and the line that is not a JSON object.
  """
  try:
    file = open(path, "rb")  # noqa: SIM115 - closed below
  except OSError as error:
    raise errors.UserError(f"{path}: {error.strerror}") from error
  with file:
    for number, line in enumerate(file, start=1):  # bytes: ends at "\n" only
      if not line.endswith(b"\n"):
        raise errors.UserError(f"{path}:{number}: the last line is cut off")
      try:
        record = json.loads(line.decode(), parse_constant=_refuse_constant)
      except ValueError as error:
        raise errors.UserError(f"{path}:{number}: not JSON: {error}") from error
      if not isinstance(record, dict):
        raise errors.UserError(f"{path}:{number}: not a JSON object")
      yield record


def read_trajectories(path: str | os.PathLike) -> Iterator[Trajectory]:
  """The trajectories of a record file.

  Raises:
    UserError: names the file and the line that is not a record.
  """
  for number, record in enumerate(read_records(path), start=1):
    try:
      yield from_record(record)
    except ValueError as error:
      raise errors.UserError(f"{path}:{number}: {error}") from error


def _line(record: Mapping[str, Any]) -> bytes:
  text = json.dumps(record, ensure_ascii=False, allow_nan=False)
  # Some tools end a line here too; in JSON they only occur inside strings.
  for separator in "\x85\u2028\u2029":
    text = text.replace(separator, f"\\u{ord(separator):04x}")
  try:
    return text.encode("utf-8") + b"\n"
  except UnicodeEncodeError:  # half of a surrogate pair, from model text
    return json.dumps(record, allow_nan=False).encode("ascii") + b"\n"


def _refuse_constant(name: str) -> None:
  raise ValueError(f"{name} is not JSON")


def _without_calls(record: dict[str, Any]) -> dict[str, Any]:
  turns = [
    {name: value for name, value in turn.items() if name not in _CALLS}
    for turn in record["turns"]
  ]
  short = {name: v for name, v in record.items() if name not in _CALLS}
  return short | {"turns": turns, "short": True}


def _without_tokens(value: Any) -> Any:
  if isinstance(value, dict):
    return {
      key: [] if key in _TOKEN_FIELDS else _without_tokens(child)
      for key, child in value.items()
    }
  if isinstance(value, list):
    return [_without_tokens(child) for child in value]
  return value


def _map_text(value: Any, change: Redact, keys: bool = False) -> Any:
  """`keys`: inside a call's arguments, whose names a model wrote."""
  if isinstance(value, str):
    return change(value)
  if isinstance(value, dict):
    return {
      change(key) if keys else key: _map_text(
        child, change, keys or key == "arguments"
      )
      for key, child in value.items()
    }
  if isinstance(value, list):
    if set(map(type, value)) <= {int, float}:
      return value  # token ids: by the thousand
    return [_map_text(child, change, keys) for child in value]
  return value
