"""The small files of a model: architecture.json, tokenizer/, adapter.json.

A run has them in RUN_DIR/model, a model of its own beside its parameters.
architecture.json is written last, so a directory that has it has the rest.

What a directory is can be asked without jax: a launch script refuses a wrong
one before it loads anything.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import TYPE_CHECKING, Protocol

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.training import run_dir as run_dir_lib

if TYPE_CHECKING:  # it imports jax
  from agentflow_jax.models import architecture as architecture_lib

ADAPTERS = "adapter.json"  # only where a run trains adapters
_ARCHITECTURE = "architecture.json"
_TOKENIZER = "tokenizer"


class SavableTokenizer(Protocol):
  """What a tokenizer needs to be kept beside the weights."""

  def save(self, directory: str | pathlib.Path) -> None: ...


def save_description(
  directory: str | os.PathLike,
  arch: "architecture_lib.Architecture",
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


def refuse_described(directory: pathlib.Path) -> None:
  """Raises CheckpointError where a new model can not go."""
  if is_described(directory):
    raise errors.CheckpointError(f"{directory} holds a model already")


def find_run(checkpoint: str | os.PathLike) -> pathlib.Path | None:
  """The run directory that a checkpoint is, or lies in (its hf/ and base/)."""
  directory = pathlib.Path(checkpoint).absolute()
  for path in (directory, directory.parent):
    if is_described(run_dir_lib.for_paths(path).model):
      return path
  return None


def check_model(checkpoint: str | os.PathLike) -> None:
  """Raises CheckpointError unless it is a run, a model or of Hugging Face."""
  directory = pathlib.Path(checkpoint).absolute()
  if not (
    is_described(directory)
    or is_described(run_dir_lib.for_paths(directory).model)
    or (directory / "config.json").exists()
  ):
    raise errors.CheckpointError(
      f"{directory} is no model: it holds neither architecture.json (a "
      "model), model/architecture.json (a run) nor config.json (Hugging Face)"
    )


def check_start(config: config_lib.Config) -> None:
  """What a run starts from, before anything is loaded or written.

  Raises:
    ConfigError: there is neither a checkpoint nor a warm start.
    CheckpointError: the checkpoint is no model.
  """
  if config.model.checkpoint:
    check_model(config.model.checkpoint)
  elif not config.warm_start.enabled:
    raise errors.ConfigError(
      "model.checkpoint is empty and warm_start.enabled is false: name a model "
      "directory, or let worldfacts warm-start a small one"
    )


def check_adapters(checkpoint: str | os.PathLike) -> None:
  """Raises CheckpointError unless it is a run that trained adapters."""
  directory = pathlib.Path(checkpoint).absolute()
  if not (run_dir_lib.for_paths(directory).model / ADAPTERS).exists():
    raise errors.CheckpointError(
      f"{directory} is no run that trained adapters (model.lora.rank > 0)"
    )


def tokenizer_dir(directory: pathlib.Path) -> pathlib.Path:
  return directory / _TOKENIZER


def read_architecture(
  directory: str | os.PathLike,
) -> "architecture_lib.Architecture":
  """Raises CheckpointError, naming the file, when it can not be read."""
  from agentflow_jax.models import architecture as architecture_lib

  file = pathlib.Path(directory) / _ARCHITECTURE
  try:
    fields = json.loads(file.read_text(encoding="utf-8"))
    return architecture_lib.Architecture(**fields)
  except (OSError, ValueError, TypeError) as error:
    raise errors.CheckpointError(f"{file} can not be read: {error}") from error
