"""A directory of an export: the old one, or the new one whole.

Flow: a hidden directory beside the target is filled by the caller, made durable
and renamed to the target. A failure leaves nothing behind, a kill leaves only
the hidden directory, which the next export of that target removes.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from agentflow_jax.core import errors

MARKER_FILE = "agentflow_export.json"  # what may be overwritten has one


@contextlib.contextmanager
def replacing(
  directory: pathlib.Path, overwrite: bool
) -> Iterator[pathlib.Path]:
  """Yields the hidden directory; publishes it if the block ends well.

  Args:
    directory: absolute; must not exist, or be empty, or (with `overwrite`) an
      earlier export.
    overwrite: replace an earlier export.

  Raises:
    CheckpointError: the target is taken or can not be written.
  """
  refuse_taken(directory, overwrite)
  try:
    with _staging(directory) as staging:
      yield staging
      _publish(staging, directory)
  except OSError as error:  # a full disk, a directory we may not write
    raise errors.CheckpointError(f"{directory}: {error}") from error


def write_json(file: pathlib.Path, value: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def refuse_taken(directory: pathlib.Path, overwrite: bool) -> None:
  """Raises CheckpointError if `replacing` would: ask before long work."""
  if not directory.exists():
    return
  if not directory.is_dir():
    raise errors.CheckpointError(f"{directory} exists and is not a directory")
  if not any(directory.iterdir()):
    return
  if not (directory / MARKER_FILE).exists():
    raise errors.CheckpointError(
      f"{directory} exists and is not an earlier export (no {MARKER_FILE}); "
      "choose another directory"
    )
  if not overwrite:
    raise errors.CheckpointError(
      f"{directory} holds an earlier export; choose another directory or ask "
      "for it to be overwritten"
    )


@contextlib.contextmanager
def _staging(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """A fresh hidden directory beside the target, gone at the end."""
  directory.parent.mkdir(parents=True, exist_ok=True)
  staging = directory.parent / f".{directory.name}.partial"
  shutil.rmtree(staging, ignore_errors=True)
  staging.mkdir()
  try:
    yield staging
  finally:
    shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: pathlib.Path, directory: pathlib.Path) -> None:
  """Makes `staging` durable and gives it the target's name."""
  for file in staging.iterdir():
    _sync(file)
  _sync(staging)
  previous = directory.parent / f".{directory.name}.previous"
  replaced = directory.exists()
  if replaced:
    shutil.rmtree(previous, ignore_errors=True)
    directory.rename(previous)
  try:
    staging.rename(directory)
  except OSError:
    if replaced:
      previous.rename(directory)
    raise
  _sync(directory.parent)
  shutil.rmtree(previous, ignore_errors=True)


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
