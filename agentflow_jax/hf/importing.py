"""Reads a Hugging Face directory into an Architecture and parameters.

Flow: config.json -> Architecture; file headers -> every tensor's place and
shape, compared with the name table before anything is read; then parameter by
parameter, layer by layer, into host buffers of one shard each and onto the
devices. Host memory beyond the parameters is one parameter and one tensor.

Reads safetensors only (never pickles); needs neither torch nor transformers.
"""

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from agentflow_jax.core import config_validation, errors
from agentflow_jax.hf import mapping, tensor_file
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import host_memory, transformer
from agentflow_jax.models import sharding as sharding_lib

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PARAM_DTYPES = config_validation.CHOICES["model.param_dtype"]
# Elements per block of a transposing copy; whole columns miss the cache.
_BLOCK = 256


def load_checkpoint(
  directory: str | pathlib.Path,
  *,
  dtype: str = "float32",
  param_dtype: str = "float32",
  remat: str = "none",
  mesh: Mesh | None = None,
) -> tuple[architecture_lib.Architecture, transformer.Params]:
  """Weights of a Qwen2, Qwen2.5 or Qwen3 directory, values unchanged.

  Args:
    directory: with config.json and one or several safetensors files.
    dtype: computation type of the returned architecture.
    param_dtype: what the parameters are stored in; stored float32 is rounded
      to nearest even for "bfloat16".
    remat: see `Architecture.remat`.
    mesh: where the parameters go, each shard to its device; None = the
      default device.

  Raises:
    CheckpointError: anything missing, torn, surplus or of the wrong shape.
    ConfigError: an unknown dtype, or a mesh the model can not be split over.
  """
  directory = pathlib.Path(directory)
  if param_dtype not in PARAM_DTYPES:
    raise errors.ConfigError(
      f"param_dtype={param_dtype!r} is unknown; known: "
      f"{', '.join(PARAM_DTYPES)}"
    )
  config = read_json(directory / "config.json")
  try:
    arch = architecture_lib.from_hf_config(config, dtype=dtype, remat=remat)
  except errors.CheckpointError as error:
    raise errors.CheckpointError(f"{directory}: {error}") from error
  stored = stored_tensors(directory)
  slots = mapping.slots(arch)
  _check(arch, slots, stored, directory)
  shardings = None if mesh is None else sharding_lib.param_shardings(arch, mesh)
  params = {}
  # Largest first: the transient copy of a parameter is then never on top of
  # everything else.
  for slot in sorted(slots, key=lambda s: -math.prod(s.shape)):
    path = slot.row.path
    sharding = None if shardings is None else mapping.get(shardings, path)
    params[path] = _load_parameter(
      slot, stored, np.dtype(jnp.dtype(param_dtype)), sharding
    )
  logging.info(
    "read %s: %s, %d parameters", directory, arch.family, arch.parameter_count()
  )
  return arch, mapping.nest(params.items())


def read_json(file: pathlib.Path) -> dict[str, Any]:
  """A JSON object.

  Raises:
    CheckpointError: missing, unreadable or not an object.
  """
  try:
    value = json.loads(file.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise errors.CheckpointError(f"{file}: no such file") from error
  except (OSError, ValueError) as error:
    raise errors.CheckpointError(
      f"{file}: not readable JSON ({error})"
    ) from error
  if not isinstance(value, dict):
    raise errors.CheckpointError(f"{file}: not a JSON object")
  return value


def stored_tensors(
  directory: pathlib.Path,
) -> dict[str, tensor_file.StoredTensor]:
  """Every tensor of the directory's weight files, by name.

  Raises:
    CheckpointError: files are missing, torn, or not what the index says.
  """
  if not (directory / INDEX_FILE).exists():
    if not (directory / SINGLE_FILE).exists():
      raise errors.CheckpointError(
        f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}; other "
        "weight formats are not read"
      )
    return tensor_file.read_header(directory / SINGLE_FILE)
  index = directory / INDEX_FILE
  weight_map = read_json(index).get("weight_map")
  if not isinstance(weight_map, dict) or not weight_map:
    raise errors.CheckpointError(f"{index}: no weight_map")
  stored: dict[str, tensor_file.StoredTensor] = {}
  for file in sorted({str(name) for name in weight_map.values()}):
    if pathlib.PurePath(file).name != file:
      raise errors.CheckpointError(f"{index}: {file!r} is not a file name")
    stored |= tensor_file.read_header(directory / file)
  for name, file in weight_map.items():
    if name not in stored or stored[name].file.name != file:
      raise errors.CheckpointError(
        f"{index}: tensor {name} is not in {file}, where the index has it"
      )
  return stored


def _check(arch, slots, stored, directory) -> None:
  """Names and shapes of all tensors against the table."""
  for slot in slots:
    for name in slot.hf_names():
      if name not in stored:
        raise errors.CheckpointError(f"{directory}: tensor {name} is missing")
      if stored[name].shape != slot.hf_shape:
        raise errors.CheckpointError(
          f"{stored[name].file}: tensor {name} has shape "
          f"{list(stored[name].shape)}, config.json needs "
          f"{list(slot.hf_shape)}"
        )
  known = {name for slot in slots for name in slot.hf_names()}
  for name in stored.keys() - known:
    if not mapping.is_derived(name, arch):
      raise errors.CheckpointError(
        f"{stored[name].file}: tensor {name} does not belong to the model in "
        "config.json"
      )


# Per axis of our array, the start and stop of what a device holds.
_Bounds = tuple[tuple[int, int], ...]


def _load_parameter(
  slot: mapping.Slot,
  stored: dict[str, tensor_file.StoredTensor],
  dtype: np.dtype,
  sharding: jax.sharding.NamedSharding | None,
) -> jax.Array:
  """One parameter, on the devices of `sharding` that this process owns."""
  whole = tuple((0, size) for size in slot.shape)
  owners = [(None, whole)] if sharding is None else _owners(slot, sharding)
  shards = {
    bounds: host_memory.empty([stop - start for start, stop in bounds], dtype)
    for _, bounds in owners
  }
  for layer, name in enumerate(slot.hf_names()):
    array = slot.row.from_hf(stored[name].read(), slot.layer_shape)
    for bounds, shard in shards.items():
      index = tuple(slice(*part) for part in bounds)
      if slot.row.stacked:  # L is never split
        index, shard = index[1:], shard[layer]
      _copy(shard, array[index], slot.row.inputs)
  if sharding is None:
    return jax.device_put(shards[whole])
  return jax.make_array_from_single_device_arrays(
    slot.shape,
    sharding,
    [jax.device_put(shards[bounds], device) for device, bounds in owners],
  )


def _owners(
  slot: mapping.Slot, sharding: jax.sharding.NamedSharding
) -> list[tuple[Any, _Bounds]]:
  """This process's devices and what each holds."""
  indices = sharding.addressable_devices_indices_map(slot.shape)
  return [
    (
      device,
      tuple(
        part.indices(size)[:2]
        for part, size in zip(index or (), slot.shape, strict=True)
      ),
    )
    for device, index in indices.items()
  ]


def _copy(target: np.ndarray, source: np.ndarray, axis: int | None) -> None:
  """target[...] = source, in blocks of `axis`, the rows of the stored tensor.

  Converts to the target's element type on the way.
  """
  if not axis:
    target[...] = source
    return
  step = max(1, _BLOCK // math.prod(source.shape[axis + 1 :]))
  for start in range(0, source.shape[axis], step):
    block = (slice(None),) * axis + (slice(start, start + step),)
    target[block] = source[block]
