"""Datasets of tasks on disk: written by TFDS, whole or not at all.

Layout: DATA_DIR/tasks/NAME/{task_dataset/NAME/VERSION/ (array_record),
quarantine.jsonl, about.json}. Anyone can read the inner folder with
`tfds.builder_from_directory`; we read it through `open_dataset`.

Written beside its place and renamed when complete: questions, quarantine and
counts are always of one preparation. Preparing the same file again changes
nothing; the same questions with other bad rows, or from another file, are
written anew. Other questions under the same name are refused unless the user
asks for it, because runs that go on would see them.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.datasets import checking, formats

SPLIT = "questions"
_VERSION = "1.0.0"
_ABOUT = "about.json"
_QUARANTINE = "quarantine.jsonl"
_TEXTS = ("id", "question", "data_source", "scorer", "family")
_LISTS = ("answers", "options", "evidence")


def directory(data_dir: str | os.PathLike[str], name: str) -> pathlib.Path:
  """Where the dataset of a name lies."""
  return pathlib.Path(data_dir) / "tasks" / name


def write(
  data_dir: str | os.PathLike[str],
  name: str,
  checked: checking.Checked,
  *,
  source: str,
  overwrite: bool = False,
) -> dict[str, Any]:
  """Writes a dataset; returns what about.json says.

  Args:
    data_dir: made if needed.
    name: the dataset's, as in "tfds:NAME".
    checked: tasks in the order they will have, and the bad rows.
    source: where they come from, for the record.
    overwrite: replace other tasks of the same name.

  Raises:
    UserError: other tasks have this name, or the disk says no.
  """
  target = directory(data_dir, name)
  about = {
    "name": name,
    "source": source,
    "questions": len(checked.tasks),
    "quarantined": len(checked.bad),
    "attachments": checked.attachments,
    "left_out": checking.attachments_note(checked.attachments),
    "scorers": sorted({task.scorer for task in checked.tasks}),
    "digest": _digest(checked.tasks),
  }
  lines = [json.dumps(dataclasses.asdict(row)) for row in checked.bad]
  quarantine = "".join(f"{line}\n" for line in lines)
  if target.exists():
    before = read_about(data_dir, name)
    if before == about and _holds(target / _QUARANTINE, quarantine):
      return before
    if before["digest"] != about["digest"] and not overwrite:
      raise errors.UserError(
        f"{target} holds other questions ({before['questions']} from "
        f"{before['source']}); use --overwrite, or another --name"
      )
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
      prefix=f".{name}.", dir=target.parent
    ) as temporary:
      new = pathlib.Path(temporary) / "new"
      _write_tfds(new, name, checked.tasks)
      (new / _QUARANTINE).write_text(quarantine, encoding="utf-8")
      (new / _ABOUT).write_text(
        json.dumps(about, indent=2) + "\n", encoding="utf-8"
      )
      if target.exists():
        os.rename(target, pathlib.Path(temporary) / "old")
      os.rename(new, target)
  except OSError as error:
    raise errors.UserError(f"can not write {target}: {error}") from error
  return about


def read_about(data_dir: str | os.PathLike[str], name: str) -> dict[str, Any]:
  """What was written under a name.

  Raises:
    UserError: there is no such dataset, or its description is damaged.
  """
  path = directory(data_dir, name) / _ABOUT
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    known = name in formats.FORMATS
    flags = f"--dataset={name}" if known else f"--dataset=... --name={name}"
    raise errors.UserError(
      f"there is no dataset {name!r} in {data_dir}; write it with "
      f"launch/prepare_data.py {flags} --source=PATH "
      f"--data_dir={data_dir}, or point tasks.data_dir at where it is"
    ) from error
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{path} is damaged: {error}") from error


def open_records(
  data_dir: str | os.PathLike[str], name: str
) -> Sequence[Mapping[str, Any]]:
  """The records of a dataset, read when they are asked for.

  Raises:
    UserError: as `read_about`, or records are missing.
  """
  about = read_about(data_dir, name)
  records = _builder(directory(data_dir, name), name, ()).as_data_source(
    split=SPLIT
  )
  if len(records) != about["questions"]:
    raise errors.UserError(
      f"{directory(data_dir, name)} has {len(records)} questions, not "
      f"{about['questions']}: delete it and prepare it again"
    )
  return records


def _holds(path: pathlib.Path, text: str) -> bool:
  try:
    return path.read_bytes() == text.encode("utf-8")
  except OSError:
    return False


def _write_tfds(
  root: pathlib.Path, name: str, tasks: Sequence[task_lib.Task]
) -> None:
  builder = _builder(root, name, tasks)
  # tfds prints of a download that there is not.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()
  shutil.rmtree(root / "downloads", ignore_errors=True)


def _builder(
  root: pathlib.Path, name: str, tasks: Sequence[task_lib.Task]
) -> Any:
  """The TFDS builder; imported here, because it is slow to import."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  own = tfds.core.BuilderConfig(name=name, version=_VERSION)

  class TaskDataset(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Questions with their reference answers, one config per dataset."""

    VERSION = tfds.core.Version(_VERSION)
    BUILDER_CONFIGS = [own]  # or else tfds warns of a custom one
    # Nothing is downloaded, so there are no checksums beside the code.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
      text = tfds.features.Text()
      return tfds.core.DatasetInfo(
        builder=self,
        description="Questions with checkable answers.",
        features=tfds.features.FeaturesDict(
          {
            **dict.fromkeys(_TEXTS, text),
            **dict.fromkeys(_LISTS, tfds.features.Sequence(text)),
          }
        ),
        disable_shuffling=True,  # our order, whatever the number of shards
      )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
      del dl_manager
      return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
      for index, task in enumerate(tasks):
        record = {field: getattr(task, field) for field in _TEXTS}
        lists = {field: list(getattr(task, field)) for field in _LISTS}
        yield index, record | lists

  return TaskDataset(
    config=own,
    data_dir=os.fspath(root),
    file_format="array_record",
  )


def _digest(tasks: Sequence[task_lib.Task]) -> str:
  digest = hashlib.blake2b(digest_size=16)
  for task in tasks:
    digest.update(repr(task).encode("utf-8"))
  return digest.hexdigest()
