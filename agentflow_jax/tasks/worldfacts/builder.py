"""Worldfacts as a TFDS dataset: splits `train` and `held_out`, array_record.

Written once by `prepare`, read with random access by `tasks/sources.py`, and
by anyone else with `tfds.builder_from_directory`. No TensorFlow is needed, and
there is no download: the questions come from questions.py.

It lies in a folder named by a hash of the questions, so what another version
of the facts has written is never mistaken for this one's.
"""

import contextlib
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator

import tensorflow_datasets as tfds

from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.worldfacts import questions, split

_VERSION = "1.0.0"
_HASH_DIGITS = 12


class Worldfacts(tfds.core.GeneratorBasedBuilder):
  """True, stable facts as one-hop, two-hop and compute questions.

  Features: id, question, answers (all accepted), data_source, scorer, family;
  the fields of core Task.
  """

  VERSION = tfds.core.Version(_VERSION)
  # Nothing is downloaded, so there are no checksums beside the code; to look
  # for them, tfds imports a package that it does not depend on.
  code_path = None

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description="Questions about stable facts, with checkable answers.",
      features=tfds.features.FeaturesDict(
        {
          "id": text,
          "question": text,
          "answers": tfds.features.Sequence(text),
          "data_source": text,
          "scorer": text,
          "family": text,
        }
      ),
      # The order of questions.tasks, whatever the number of shards.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    return {name: self._generate_examples(name) for name in split.SPLITS}

  def _generate_examples(self, split_name: str) -> Iterator[tuple[int, dict]]:
    for index, task in enumerate(questions.tasks(split_name)):
      yield index, _record(task)


def prepare(data_dir: str | os.PathLike[str]) -> Worldfacts:
  """The dataset below `data_dir`, written there if it is not there yet.

  Written beside its place and renamed when complete: a killed process leaves
  nothing that is read, and processes that prepare at the same time agree.

  Raises:
    OSError: `data_dir` can not be written.
  """
  tfds.disable_progress_bar()
  root = pathlib.Path(data_dir) / f"worldfacts-{_content_hash()}"
  builder = _open(root)
  try:
    # tfds prints what it does; our stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
      builder.download_and_prepare()
  except OSError:
    # Another process may have been first: its rename has filled our target.
    builder = _open(root)
    if not builder.is_prepared():
      raise
  return builder


def _open(root: pathlib.Path) -> Worldfacts:
  return Worldfacts(data_dir=os.fspath(root), file_format="array_record")


def _record(task: task_lib.Task) -> dict[str, str | list[str]]:
  return {
    "id": task.id,
    "question": task.question,
    "answers": list(task.answers),
    "data_source": task.data_source,
    "scorer": task.scorer,
    "family": task.family,
  }


def _content_hash() -> str:
  digest = hashlib.blake2b()
  for name in split.SPLITS:
    for task in questions.tasks(name):
      digest.update(repr((name, task)).encode("utf-8"))
  return digest.hexdigest()[:_HASH_DIGITS]
