"""Models as directories: architecture, tokenizer and weights.

A model comes from a run (its best checkpoint, else its latest), from a
directory of its own (RUN_DIR/base), or from a Hugging Face directory. A run
that trained adapters is loaded as the model they make of their base.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.hf import importing
from agentflow_jax.hf import tokenizer as hf_tokenizer
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import lora as lora_lib
from agentflow_jax.models import sharding as sharding_lib
from agentflow_jax.models import transformer
from agentflow_jax.training import (
  adapter_files,
  array_store,
  checkpointing,
  model_files,
)
from agentflow_jax.training import run_dir as run_dir_lib

_PARAMS = "params"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
  """A model as found in a directory."""

  arch: architecture_lib.Architecture
  params: transformer.Params
  tokenizer: hf_tokenizer.HfTokenizer
  step: int | None = None  # of the run's checkpoint, where it is a run

  def identity(self) -> str:
    """Which weights these are, for a record: "step 12, weights 0badcafe".

    A run that trains on is another policy under the same path. The last bits
    of merged adapters, and so their digits, depend on the mesh.
    """
    digits = f"weights {adapter_files.checksum(self.params)}"
    return digits if self.step is None else f"step {self.step}, {digits}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedAdapters:
  """What a run trained, not merged, and where the base lies."""

  arch: architecture_lib.Architecture  # with `lora`
  adapters: transformer.Params
  base_dir: pathlib.Path
  tokenizer: hf_tokenizer.HfTokenizer


def save_model(
  directory: str | os.PathLike,
  arch: architecture_lib.Architecture,
  params: transformer.Params,
  tokenizer: model_files.SavableTokenizer,
) -> None:
  """Writes a model of its own; returns when it is complete.

  Raises CheckpointError when the directory holds a model, or writing fails.
  """
  directory = pathlib.Path(directory).absolute()
  model_files.refuse_described(directory)
  if array_store.is_primary():
    array_store.remove(directory / _PARAMS)  # of an attempt that was killed
  with array_store.ArrayWriter() as writer:
    writer.save(directory / _PARAMS, array_store.flatten({_PARAMS: params}), {})
  if array_store.is_primary():  # last: its presence says all of it is there
    model_files.save_description(directory, arch, tokenizer)


def load_model(
  directory: str | os.PathLike,
  *,
  mesh: jax.sharding.Mesh | None = None,
  dtype: str | None = None,
  param_dtype: str | None = None,
  remat: str = "none",
) -> LoadedModel:
  """Loads a model from whatever kind of directory it is.

  Args:
    directory: a RUN_DIR, what `save_model` wrote, or a Hugging Face directory.
    mesh: where the parameters go; None is one device.
    dtype: of the computation; None is the stored one, in Hugging Face float32.
    param_dtype: casts the parameters; None as for `dtype`. Merged adapters are
      float32 by themselves.
    remat: as in ModelConfig.

  Raises:
    CheckpointError: none of the three, incomplete, or it does not fit.
  """
  model_files.check_model(directory)
  directory = pathlib.Path(directory).absolute()
  run = run_dir_lib.for_paths(directory)
  kind = {"mesh": mesh, "param_dtype": param_dtype}
  step = None
  if model_files.is_described(directory):
    described, arrays = directory, directory / _PARAMS
  elif model_files.is_described(run.model):
    described, arrays = run.model, _best_checkpoint(run)
    step = checkpointing.step_of(arrays)
  else:
    arch, params = importing.load_checkpoint(
      directory,
      dtype=dtype or "float32",
      param_dtype=param_dtype or "float32",
      remat=remat,
      mesh=mesh,
    )
    tokenizer = hf_tokenizer.HfTokenizer.from_directory(directory)
    return LoadedModel(arch=arch, params=params, tokenizer=tokenizer)
  arch = model_files.read_architecture(described)
  arch = dataclasses.replace(arch, dtype=dtype or arch.dtype, remat=remat)
  description = adapter_files.read(described)
  if description is None:
    params = _load_arrays(arrays, arch, **kind)
  else:
    params = _load_merged(directory, arrays, arch, description, **kind)
  return LoadedModel(
    arch=arch,
    params=params,
    tokenizer=hf_tokenizer.HfTokenizer.from_directory(
      model_files.tokenizer_dir(described)
    ),
    step=step,
  )


def load_adapters(directory: str | os.PathLike) -> LoadedAdapters:
  """The adapters of a run's best checkpoint, else its latest.

  Raises:
    CheckpointError: it is no run that trained adapters, or incomplete.
  """
  model_files.check_adapters(directory)
  directory = pathlib.Path(directory).absolute()
  run = run_dir_lib.for_paths(directory)
  description = adapter_files.read(run.model)
  assert description is not None  # it was there a moment ago
  arch = dataclasses.replace(
    model_files.read_architecture(run.model), lora=description.lora
  )
  return LoadedAdapters(
    arch=arch,
    adapters=_load_arrays(_best_checkpoint(run), arch, None, None),
    base_dir=description.base_dir(directory),
    tokenizer=hf_tokenizer.HfTokenizer.from_directory(
      model_files.tokenizer_dir(run.model)
    ),
  )


def _best_checkpoint(run: run_dir_lib.RunDir) -> pathlib.Path:
  return checkpointing.Checkpointer(
    run.checkpoints, keep_last=1, keep_best=True
  ).best_or_latest()


def _load_merged(
  directory: pathlib.Path,
  arrays: pathlib.Path,
  arch: architecture_lib.Architecture,
  description: adapter_files.AdapterDescription,
  mesh: jax.sharding.Mesh | None,
  param_dtype: str | None,
) -> transformer.Params:
  """Base and adapters as one model; the sum is taken in float32."""
  base_dir = description.base_dir(directory)
  base = load_model(base_dir, mesh=mesh, param_dtype=description.base_dtype)
  adapter_files.check_base(description, base_dir, base.params)
  adapted = dataclasses.replace(arch, lora=description.lora)
  adapters = _load_arrays(arrays, adapted, mesh, None)
  merge = functools.partial(_merge, description.lora, param_dtype or "float32")
  if mesh is None:
    return jax.jit(merge)(base.params, adapters)
  shardings = sharding_lib.param_shardings(arch, mesh)
  return jax.jit(merge, out_shardings=shardings)(base.params, adapters)


def _merge(lora: lora_lib.Lora, dtype: str, base: Any, adapters: Any) -> Any:
  merged = lora_lib.merged(lora, base, adapters)
  return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), merged)


def _load_arrays(
  directory: pathlib.Path,
  arch: architecture_lib.Architecture,
  mesh: jax.sharding.Mesh | None,
  param_dtype: str | None,
) -> transformer.Params:
  """What a checkpoint or model trained (all, or adapters), as stored."""
  shapes = transformer.param_shapes(arch)
  if mesh is not None:
    shapes = jax.tree.map(
      lambda shape, place: jax.ShapeDtypeStruct(
        shape.shape, shape.dtype, sharding=place
      ),
      shapes,
      sharding_lib.param_shardings(arch, mesh),
    )
  if arch.lora is not None:
    shapes = lora_lib.select(shapes)
  targets = array_store.flatten({_PARAMS: shapes})
  arrays = array_store.restore(
    directory, targets, dtype=param_dtype or "stored"
  )
  return jax.tree.unflatten(
    jax.tree.structure(shapes), [arrays[name] for name in targets]
  )
