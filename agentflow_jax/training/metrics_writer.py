"""Metrics of a run: JSON lines for us, TensorBoard and W&B for people.

RUN_DIR/metrics.jsonl gets one line per iteration,
`{"iteration": 3, "step": 12, "reward": 0.5, ...}`, and RUN_DIR/
evaluations.jsonl one per evaluation. A resumed run first drops what lies
beyond the iteration it resumes from, so that in the end both files are those
of an uninterrupted run. Non-finite numbers are the strings "nan", "inf",
"-inf", since JSON has none; `read_metrics` turns them back.
"""

import hashlib
import json
import math
import os
import pathlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.training import run_dir as run_dir_lib

_METRICS = "metrics.jsonl"
_EVALUATIONS = "evaluations.jsonl"
_NON_FINITE = ("nan", "inf", "-inf")


class MetricsWriter:
  """Writes each iteration's numbers everywhere they are wanted.

  Example:
    with MetricsWriter("runs/a", tensorboard=True) as writer:
      writer.write(iteration=1, step=4, metrics={"reward": 0.5})
  """

  def __init__(
    self,
    run_dir: str | os.PathLike,
    *,
    tensorboard: bool = False,
    wandb_project: str = "",
    resume_iteration: int | None = None,
  ):
    """Opens the outputs.

    Args:
      run_dir: the run's directory.
      tensorboard: also write RUN_DIR/tensorboard.
      wandb_project: also log to this W&B project; "" is off.
      resume_iteration: the last iteration whose lines stay; None is a run
        from the start, which keeps nothing.

    Raises:
      UserError: wandb is asked for and not installed, or a file of an
        earlier attempt is damaged.
    """
    self._dir = pathlib.Path(run_dir)
    self._dir.mkdir(parents=True, exist_ok=True)
    last = -1 if resume_iteration is None else resume_iteration
    self._metrics = _Log(self._dir / _METRICS, last)
    self._evaluations = _Log(self._dir / _EVALUATIONS, last)
    self._tensorboard = (
      _open_tensorboard(self._dir / "tensorboard", last + 1)
      if tensorboard
      else None
    )
    self._wandb = (
      _open_wandb(self._dir, wandb_project) if wandb_project else None
    )

  def write(
    self, *, iteration: int, step: int, metrics: Mapping[str, float]
  ) -> None:
    """One line per iteration; `step` counts optimizer steps.

    Raises:
      ValueError: the iteration has its line already.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    record = {"iteration": iteration, "step": step} | numbers
    if self._metrics.find(lambda line: line["iteration"] >= iteration):
      raise ValueError(f"iteration {iteration} is written already")
    self._metrics.append(record)
    self._show(iteration, numbers)

  def write_evaluation(
    self, *, iteration: int, when: str, summary: Mapping[str, Any]
  ) -> None:
    """One evaluation; the same one repeated replaces its line.

    Args:
      iteration: after how many iterations.
      when: "before", "during" or "after" training.
      summary: of evaluation.scores.summarise.
    """
    record = {"iteration": iteration, "when": when} | dict(summary)
    key = (iteration, when)
    self._evaluations.drop(
      lambda line: (line["iteration"], line["when"]) == key
    )
    self._evaluations.append(record)
    numbers = {"accuracy": summary["accuracy"], "reward": summary["reward"]}
    numbers |= {f"accuracy/{n}": v for n, v in summary["families"].items()}
    self._show(iteration, {f"evaluation/{n}": v for n, v in numbers.items()})

  def close(self) -> None:
    """Flushes and closes every output."""
    if self._tensorboard is not None:
      self._tensorboard.close()
    if self._wandb is not None:
      self._wandb.finish()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _show(self, iteration: int, numbers: Mapping[str, float]) -> None:
    if self._tensorboard is not None:
      for name, value in numbers.items():
        self._tensorboard.add_scalar(name, value, iteration)
      self._tensorboard.flush()
    if self._wandb is not None:
      # Its own step refuses to go back, which a resumed run does.
      self._wandb.log({"iteration": iteration} | dict(numbers))


def read_metrics(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
  """The lines of RUN_DIR/metrics.jsonl, oldest first; [] if there are none.

  Raises:
    UserError: names the file and the damaged line.
  """
  return _read(pathlib.Path(run_dir) / _METRICS)


def read_evaluations(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
  """The lines of RUN_DIR/evaluations.jsonl, as `read_metrics`."""
  return _read(pathlib.Path(run_dir) / _EVALUATIONS)


class _Log:
  """A file of JSON lines, kept in memory too (one line per iteration)."""

  def __init__(self, path: pathlib.Path, last_iteration: int):
    self._path = path
    self._lines = _read(path)
    self.drop(lambda line: line["iteration"] > last_iteration)
    # Also ends a line that a kill cut off.
    self._rewrite()

  def find(self, matches: Callable[[dict[str, Any]], bool]) -> bool:
    return any(map(matches, self._lines))

  def append(self, record: dict[str, Any]) -> None:
    self._lines.append(record)
    with open(self._path, "a", encoding="utf-8") as file:
      file.write(_to_line(record))

  def drop(self, matches: Callable[[dict[str, Any]], bool]) -> None:
    kept = [line for line in self._lines if not matches(line)]
    if len(kept) < len(self._lines):
      logging.info(
        "%s: dropped %d lines", self._path, len(self._lines) - len(kept)
      )
      self._lines = kept
      self._rewrite()

  def _rewrite(self) -> None:
    if self._path.exists():
      text = "".join(map(_to_line, self._lines))
      run_dir_lib.atomic_write(self._path, text)


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
  if not path.exists():
    return []
  records = []
  lines = path.read_bytes().split(b"\n")
  for number, line in enumerate(lines[:-1], start=1):  # the last has no "\n"
    try:
      record = json.loads(line)
      if not isinstance(record["iteration"], int):
        raise ValueError("no iteration")
    except (ValueError, KeyError, TypeError) as error:
      raise errors.UserError(f"{path}:{number}: damaged: {error}") from error
    records.append(_from_json(record))
  if lines[-1]:
    logging.warning("%s: ignoring a last line that was cut off", path)
  return records


def _to_line(record: Mapping[str, Any]) -> str:
  return json.dumps(_to_json(record), allow_nan=False) + "\n"


def _to_json(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _to_json(child) for name, child in value.items()}
  if isinstance(value, list | tuple):
    return [_to_json(child) for child in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(float(value))
  return value


def _from_json(value: Any) -> Any:
  if isinstance(value, dict):
    return {name: _from_json(child) for name, child in value.items()}
  if isinstance(value, list):
    return [_from_json(child) for child in value]
  return float(value) if value in _NON_FINITE else value


def _open_tensorboard(directory: pathlib.Path, purge_step: int) -> Any:
  # Slow to import (it takes torch along where torch is installed).
  import tensorboardX

  return tensorboardX.SummaryWriter(
    str(directory),
    purge_step=purge_step,
    # Two attempts in one second would otherwise share a file name.
    filename_suffix=f".from{purge_step:06d}",
  )


def _open_wandb(run_dir: pathlib.Path, project: str) -> Any:
  try:
    import wandb  # pyright: ignore[reportMissingImports] - optional
  except ImportError as error:
    raise errors.UserError(
      f"training.wandb_project={project!r} needs wandb: "
      "pip install 'agentflow_jax[wandb]'"
    ) from error
  place = f"{socket.gethostname()}:{run_dir.resolve()}"
  config = run_dir / "config.json"
  run = wandb.init(
    project=project,
    name=run_dir.resolve().name,
    # The same directory continues the same W&B run.
    id=hashlib.blake2b(place.encode(), digest_size=8).hexdigest(),
    resume="allow",
    dir=str(run_dir),
    config=json.loads(config.read_text()) if config.exists() else {},
  )
  run.define_metric("*", step_metric="iteration")
  return run
