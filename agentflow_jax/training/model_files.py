"""The small files of a model: architecture.json and tokenizer/.

A run has them in RUN_DIR/model, a model of its own beside its parameters.
architecture.json is written last, so a directory that has it has the rest.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Protocol

from agentflow_jax.core import errors
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.training import run_dir as run_dir_lib

_ARCHITECTURE = "architecture.json"
_TOKENIZER = "tokenizer"


class SavableTokenizer(Protocol):
  """What a tokenizer needs to be kept beside the weights."""

  def save(self, directory: str | pathlib.Path) -> None: ...


def save_description(
  directory: str | os.PathLike,
  arch: architecture_lib.Architecture,
  tokenizer: SavableTokenizer,
) -> None:
  """Writes both; does nothing where they are already (a resumed run).

  Raises:
    CheckpointError: another architecture is there.
  """
  directory = pathlib.Path(directory)
  if is_described(directory):
    if read_architecture(directory) != arch:
      raise errors.CheckpointError(
        f"{directory / _ARCHITECTURE} describes another architecture"
      )
    return
  shutil.rmtree(tokenizer_dir(directory), ignore_errors=True)  # a torn attempt
  tokenizer_dir(directory).mkdir(parents=True)
  tokenizer.save(tokenizer_dir(directory))
  text = json.dumps(dataclasses.asdict(arch), indent=2) + "\n"
  run_dir_lib.atomic_write(directory / _ARCHITECTURE, text)


def is_described(directory: pathlib.Path) -> bool:
  return (directory / _ARCHITECTURE).exists()


def tokenizer_dir(directory: pathlib.Path) -> pathlib.Path:
  return directory / _TOKENIZER


def read_architecture(
  directory: str | os.PathLike,
) -> architecture_lib.Architecture:
  """Raises CheckpointError, naming the file, when it can not be read."""
  file = pathlib.Path(directory) / _ARCHITECTURE
  try:
    fields = json.loads(file.read_text(encoding="utf-8"))
    return architecture_lib.Architecture(**fields)
  except (OSError, ValueError, TypeError) as error:
    raise errors.CheckpointError(f"{file} can not be read: {error}") from error
