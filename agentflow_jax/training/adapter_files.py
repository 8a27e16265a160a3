"""adapter.json: what a run that trains adapters needs beside their arrays.

Flow: the base is known -> RUN_DIR/model/adapter.json (rank, targets, where the
base lies and a checksum of it), written once -> whoever loads the run finds
its base there and is refused another one. Checkpoints hold the adapters alone.
"""

import dataclasses
import json
import os
import pathlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentflow_jax.core import errors
from agentflow_jax.models import lora as lora_lib
from agentflow_jax.training import model_files
from agentflow_jax.training import run_dir as run_dir_lib

_FILE = model_files.ADAPTERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterDescription:
  """Adapters and the base they belong to.

  Example: `AdapterDescription(rank=8, alpha=16.0, targets=("q_proj",),
  base="base", base_dtype="float32", base_checksum="0badcafe")`.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]
  base: str  # a model's directory; a relative path is seen from the run
  base_dtype: str  # of its parameters, when the checksum was taken
  base_checksum: str  # "" where it is merged anew at every loading

  @property
  def lora(self) -> lora_lib.Lora:
    return lora_lib.Lora(rank=self.rank, alpha=self.alpha, targets=self.targets)

  def base_dir(self, run: pathlib.Path) -> pathlib.Path:
    return run / self.base


def describe(
  lora: lora_lib.Lora,
  base: str | os.PathLike,
  base_params: Any,
  run: pathlib.Path,
) -> AdapterDescription:
  """Of adapters on `base_params`, from the directory `base` seen from `run`."""
  # The last bits of merged adapters depend on the mesh they were merged on.
  merged = read(run / base / "model") is not None
  return AdapterDescription(
    rank=lora.rank,
    alpha=float(lora.alpha),
    targets=tuple(adapter.target for adapter in lora.adapters()),
    base=str(base),
    base_dtype=str(base_params["embedding_VD"].dtype),
    base_checksum="" if merged else checksum(base_params),
  )


def save(directory: pathlib.Path, description: AdapterDescription) -> None:
  """Writes it, or checks that a resumed run still has the same base.

  Raises:
    CheckpointError: the directory describes other adapters, or another base.
  """
  old = read(directory)
  if old is None:
    text = json.dumps(dataclasses.asdict(description), indent=2) + "\n"
    run_dir_lib.atomic_write(directory / _FILE, text)
  elif dataclasses.replace(old, base=description.base) != description:
    raise errors.CheckpointError(
      f"{directory / _FILE} describes other adapters or another base: {old}, "
      f"not {description}"
    )


def read(directory: pathlib.Path) -> AdapterDescription | None:
  """None where a whole model was trained.

  Raises:
    CheckpointError: the file can not be read.
  """
  file = directory / _FILE
  try:
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields["targets"] = tuple(fields["targets"])
    return AdapterDescription(**fields)
  except FileNotFoundError:
    return None
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise errors.CheckpointError(f"{file} can not be read: {error}") from error


def check_base(
  description: AdapterDescription, directory: pathlib.Path, params: Any
) -> None:
  """Raises CheckpointError unless `params` are the base, bit for bit."""
  wanted = description.base_checksum
  if wanted and checksum(params) != wanted:
    raise errors.CheckpointError(
      f"{directory} is not the model that the adapters were trained on: its "
      "weights have changed"
    )


def checksum(params: Any) -> str:
  """Eight hex digits of names, shapes, types and bits; any mesh gives them."""
  value = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    found = (name, leaf.shape, str(leaf.dtype), int(np.asarray(_bits(leaf))))
    value = zlib.crc32(repr(found).encode(), value)
  return f"{value:08x}"


@jax.jit
def _bits(array):
  """The sum of all bit patterns, each times an odd number of its place."""
  kind = {4: jnp.uint32, 2: jnp.uint16}[array.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32)
  place = jnp.zeros((), jnp.uint32)
  for axis, size in enumerate(array.shape):
    index = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    place = place * jnp.uint32(size) + index
  return (bits * (2 * place + 1)).sum(dtype=jnp.uint32)
