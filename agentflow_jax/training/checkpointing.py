"""Checkpoints of a run: RUN_DIR/checkpoints/step_00000012/.

They are written in the background; the last few and the best one stay. What
makes a directory whole, and how arrays get onto a mesh, is array_store.py's
business; model_loading.py takes the weights out again.
"""

import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.training import array_store

_STEP = re.compile(r"step_(\d{8,})")


class Checkpointer:
  """Saves and restores the state of a run.

  Example:
    with Checkpointer("a/checkpoints", keep_last=2, keep_best=True) as saved:
      saved.save(12, {"params": params}, {"position": 384},
                 metrics={"accuracy": 0.61})
      state, extra = saved.restore({"params": shapes_with_shardings})
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep_last: int,
    keep_best: bool,
    best_metric: str = "accuracy",
  ):
    """Writes nothing yet, so that readers may use it too.

    Args:
      directory: of the checkpoints; one process may save there.
      keep_last: newest checkpoints to keep, at least 1.
      keep_best: also keep the one with the highest `best_metric`.
      best_metric: a key of the metrics given to `save`; a checkpoint without
        it (or with nan) is never the best. Of equal ones the first is.
    """
    if keep_last < 1:
      raise ValueError(f"keep_last={keep_last} must be at least 1")
    self._directory = pathlib.Path(directory).absolute()
    self._keep_last = keep_last
    self._keep_best = keep_best
    self._best_metric = best_metric
    self._writer: array_store.ArrayWriter | None = None
    self._told: set[pathlib.Path] = set()  # torn ones that were logged

  def save(
    self,
    step: int,
    state: Any,
    extra: Mapping[str, Any],
    *,
    metrics: Mapping[str, float] | None = None,
    wait: bool = False,
  ) -> None:
    """Starts saving; the state may be donated as soon as this returns.

    Waits for the previous save first. Older ones go when this is complete.

    Args:
      step: names the checkpoint.
      state: a pytree of arrays (bf16, uint32 keys and scalars keep their bits);
        `load_model` looks for the weights at its root, under "params".
      extra: JSON: data position, seed, what the loop has to remember.
      metrics: for choosing the best.
      wait: return only when the checkpoint is complete.

    Raises:
      CheckpointError: this or the previous save failed, or the step exists.
      ValueError: `extra` does not survive JSON (tuples, integer keys).
    """
    if json.loads(json.dumps(extra)) != extra:
      raise ValueError(f"extra does not survive JSON: {extra!r}")
    if self._writer is None:
      self._writer = array_store.ArrayWriter()
      self._remove_torn()
    self._writer.save(
      self._path(step),
      array_store.flatten(state),
      {
        "step": step,
        "metrics": {k: float(v) for k, v in (metrics or {}).items()},
        "extra": dict(extra),
      },
      then=self._prune,
    )
    if wait:
      self.wait()

  def restore(
    self, target: Any, step: int | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """(state, extra) of a checkpoint.

    Args:
      target: a pytree like the saved state, or a part of it, of
        `jax.ShapeDtypeStruct` with shardings (any mesh) or example arrays.
      step: None is the latest.

    Raises:
      CheckpointError: there is none, it is not complete, or it does not fit
        `target`; names the array, found and expected shapes.
    """
    step = self.latest_step() if step is None else step
    if step is None:
      raise _nothing_in(self._directory)
    extra = self.read(step)["extra"]
    targets = array_store.flatten(target)
    arrays = array_store.restore(self._path(step), targets)
    state = jax.tree.unflatten(
      jax.tree.structure(target), [arrays[name] for name in targets]
    )
    return state, extra

  def read(self, step: int) -> dict[str, Any]:
    """A complete checkpoint's "extra", "metrics" and array shapes."""
    self.wait()
    info = array_store.read_info(self._path(step))
    if info is None:
      raise _nothing_in(self._path(step))
    return info

  def all_steps(self) -> list[int]:
    """Steps of complete checkpoints, ascending; torn ones are logged.

    Like all that reads, this first waits for a save of ours.
    """
    self.wait()
    return self._complete()

  def latest_step(self) -> int | None:
    return max(self.all_steps(), default=None)

  def best_step(self) -> int | None:
    """The step with the highest metric; None if no checkpoint has one."""
    self.wait()
    return self._best()

  def best_or_latest(self) -> pathlib.Path:
    """Where the weights are that a user of this run wants.

    Raises CheckpointError when there is no complete checkpoint.
    """
    best = self.best_step() if self._keep_best else None
    step = self.latest_step() if best is None else best
    if step is None:
      raise _nothing_in(self._directory)
    return self._path(step)

  def wait(self) -> None:
    """Until the last save is complete; raises what went wrong with it."""
    if self._writer is not None:
      self._writer.wait()

  def close(self) -> None:
    """Completes the last save and ends the threads."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _path(self, step: int) -> pathlib.Path:
    return self._directory / f"step_{step:08d}"

  def _scan(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
    if not self._directory.is_dir():
      return
    for path in self._directory.iterdir():
      step = step_of(path)
      if step is not None:
        info = array_store.read_info(path)
        if info is None and path not in self._told:
          self._told.add(path)
          logging.warning("skipping incomplete checkpoint %s", path)
        yield step, info

  def _complete(self) -> list[int]:
    return sorted(step for step, info in self._scan() if info is not None)

  def _best(self) -> int | None:
    scores = {
      step: info["metrics"].get(self._best_metric, math.nan)
      for step, info in self._scan()
      if info is not None
    }
    known = [step for step in sorted(scores) if not math.isnan(scores[step])]
    return max(known, key=lambda step: scores[step], default=None)

  def _remove_torn(self) -> None:
    if array_store.is_primary():
      for step, info in list(self._scan()):
        if info is None:
          array_store.remove(self._path(step))

  def _prune(self) -> None:
    """In the background, when a save is complete: waits for nothing."""
    if not array_store.is_primary():
      return
    steps = self._complete()
    keep = set(steps[-self._keep_last :])
    best = self._best() if self._keep_best else None
    if best is not None:
      keep.add(best)
    for step in steps:
      if step not in keep:
        array_store.remove(self._path(step))


def step_of(directory: pathlib.Path) -> int | None:
  """The step of a checkpoint's directory; None if it is named otherwise."""
  match = _STEP.fullmatch(directory.name)
  return int(match[1]) if match else None


def _nothing_in(directory: pathlib.Path) -> errors.CheckpointError:
  return errors.CheckpointError(f"{directory} holds no complete checkpoint")
