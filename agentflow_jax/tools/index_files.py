"""Writes a directory of files at once, and refuses it if a byte has changed.

Flow: `publish` fills a temporary directory beside the target, writes a manifest
with the size and digest of every file, and renames it into place, so that a
reader sees the old directory, the new one or none, never half of one. `verify`
checks the manifest against what is on disk before anything is mapped.

What it does not do: lock. Of two processes that publish the same directory at
once, the later one stays.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from agentflow_jax.core import errors

MANIFEST = "manifest.json"
_ATTEMPTS = 20


def publish(
  directory: pathlib.Path,
  header: Mapping[str, Any],
  fill: Callable[[pathlib.Path], None],
) -> None:
  """Puts a directory in place with everything `fill` writes.

  Args:
    directory: where to; replaced if it holds a manifest, that is, if an
      earlier `publish` wrote it.
    header: what the manifest says about the contents, JSON values.
    fill: writes plain files into the (empty) directory it is given.

  Raises:
    UserError: `directory` exists and is something else.
  """
  # Twice: what somebody else is deleting just now may look like anything.
  if _is_foreign(directory) and _is_foreign(directory):
    raise errors.UserError(
      f"{directory} exists and is not an index: name another directory"
    )
  directory.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(
    tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)
  )
  try:
    contents = temporary / "new"
    contents.mkdir()  # with the user's umask, unlike mkdtemp
    fill(contents)
    files = {path.name: _digest(path) for path in sorted(contents.iterdir())}
    (contents / MANIFEST).write_text(
      json.dumps({**header, "files": files}, indent=2) + "\n", encoding="utf-8"
    )
    _move_into_place(contents, directory, temporary)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _is_foreign(directory: pathlib.Path) -> bool:
  try:
    names = os.listdir(directory)
  except FileNotFoundError:
    return False
  except NotADirectoryError:
    return True
  return bool(names) and MANIFEST not in names


def _move_into_place(
  contents: pathlib.Path, directory: pathlib.Path, trash: pathlib.Path
) -> None:
  """Renames; what is in the way moves to `trash`, however often it comes."""
  for attempt in range(_ATTEMPTS):
    try:
      contents.rename(directory)
      return
    except OSError as error:
      if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
        raise
    with contextlib.suppress(FileNotFoundError):
      directory.rename(trash / f"old{attempt}")
  raise errors.UserError(f"{directory} keeps being replaced by other processes")


def verify(
  directory: pathlib.Path, expected: Mapping[str, Any], advice: str
) -> dict[str, Any]:
  """The manifest, once every file has proved to be the one it describes.

  Reads every byte of the directory (a second or two per GiB).

  Args:
    directory: what `publish` wrote.
    expected: header entries the manifest must have.
    advice: what the user should do if anything is wrong.

  Raises:
    UserError: the directory is missing, of another kind, or damaged.
  """

  def refuse(problem: str) -> errors.UserError:
    return errors.UserError(f"index {directory}: {problem}; {advice}")

  try:
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError) as error:
    raise refuse("there is none") from error
  except (OSError, ValueError) as error:
    raise refuse("its manifest is unreadable") from error
  if not isinstance(manifest, dict):
    raise refuse("its manifest is unreadable")
  found = {key: manifest.get(key) for key in expected}
  if found != dict(expected):
    raise refuse(f"it is {found}, this version reads {dict(expected)}")
  files = manifest.get("files")
  if not isinstance(files, dict):
    raise refuse("its manifest lists no files")
  for name, recorded in files.items():
    try:
      intact = _digest(directory / os.path.basename(name)) == recorded
    except OSError as error:
      raise refuse(f"{name} can not be read") from error
    if not intact:
      raise refuse(f"{name} is damaged")
  return manifest


def _digest(path: pathlib.Path) -> dict[str, Any]:
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
  return {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}
