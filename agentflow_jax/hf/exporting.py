"""Writes a Hugging Face directory that transformers and we can read.

Flow: a hidden directory beside the target (staging.py) gets config, tokenizer
and weights (streamed from the devices one tensor at a time, cut into shards);
it is read back with `load_checkpoint` and must give the logits of the
parameters in memory and the same token ids; only then is it renamed.

It runs in one process; the parameters of a multi-host run are exported from
its checkpoint afterwards. Reading back needs room for a second copy.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding

from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.hf import importing, mapping, tensor_file
from agentflow_jax.hf import staging as staging_lib
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import attention, mesh_axes, transformer

_PROBE_TOKENS = 32
_TOLERANCE = 1e-6
_PROBE_MESSAGES = (
  messages_lib.Message("system", "Tools: <|im_end|> is text here."),
  messages_lib.Message(
    "user", "Question: 12 * 34 = ?\n\nMemory:\n\tÉté 東京 🙂"
  ),
)


def export_checkpoint(
  directory: str | pathlib.Path,
  arch: architecture_lib.Architecture,
  params: transformer.Params,
  *,
  tokenizer: tokenizer_lib.HfTokenizer | None = None,
  param_dtype: str = "float32",
  max_shard_bytes: int = 5 * 2**30,
  generation: Mapping[str, Any] | None = None,
  overwrite: bool = False,
) -> None:
  """Exports, verifies, then puts the result at `directory`.

  Args:
    directory: the target; must not exist, or be empty, or (with `overwrite`)
      an earlier export.
    arch: of `params`.
    params: on any mesh.
    tokenizer: its files go along; without it the directory has weights only.
    param_dtype: float32 | bfloat16, of the stored tensors.
    max_shard_bytes: a file is closed before it would grow past this; a larger
      tensor gets a file of its own.
    generation: further entries of generation_config.json, e.g.
      {"temperature": 0.7}.
    overwrite: replace an earlier export.

  Raises:
    CheckpointError: the target is taken or can not be written, the tokenizer
      does not fit the model, or what was written does not read back as it.
    ConfigError: an unknown dtype or a shard size below one byte.
    UserError: called in a run of several processes.
  """
  directory = pathlib.Path(directory).absolute()
  if jax.process_count() > 1:
    raise errors.UserError(
      "an export runs in one process; use launch/export_hf.py on the checkpoint"
    )
  if param_dtype not in importing.PARAM_DTYPES:
    raise errors.ConfigError(
      f"param_dtype={param_dtype!r} is unknown; known: "
      f"{', '.join(importing.PARAM_DTYPES)}"
    )
  if max_shard_bytes < 1:
    raise errors.ConfigError(f"max_shard_bytes={max_shard_bytes} is too small")
  with staging_lib.replacing(directory, overwrite) as staging:
    _write_config(staging, arch, param_dtype, tokenizer, generation)
    _write_weights(staging, arch, params, param_dtype, max_shard_bytes)
    _verify(staging, arch, params, param_dtype, tokenizer)
  logging.info(
    "exported %d parameters to %s", arch.parameter_count(), directory
  )


def _write_config(staging, arch, param_dtype, tokenizer, generation) -> None:
  config = architecture_lib.to_hf_config(arch, param_dtype=param_dtype)
  generation = dict(generation or {})
  if generation.get("temperature"):
    generation.setdefault("do_sample", True)
  if tokenizer is not None:
    if tokenizer.vocab_size > arch.vocab_size:
      raise errors.CheckpointError(
        f"the tokenizer has {tokenizer.vocab_size} ids, the model only "
        f"{arch.vocab_size}"
      )
    tokenizer.save(staging)
    config["eos_token_id"] = tokenizer.eos_ids[0]
    config["pad_token_id"] = tokenizer.pad_id
    generation["eos_token_id"] = list(tokenizer.eos_ids)
    generation["pad_token_id"] = tokenizer.pad_id
  marker = {
    "written_by": "agentflow_jax",
    "parameters": arch.parameter_count(),
    "param_dtype": param_dtype,
  }
  for name, value in (
    ("config.json", config),
    ("generation_config.json", generation),
    (staging_lib.MARKER_FILE, marker),
  ):
    staging_lib.write_json(staging / name, value)


def _write_weights(staging, arch, params, param_dtype, max_shard_bytes) -> None:
  dtype = np.dtype(jnp.dtype(param_dtype))
  shards: list[list[tensor_file.PendingTensor]] = [[]]
  shard_bytes = total_bytes = 0
  for tensor in _pending(arch, params, param_dtype):
    tensor_bytes = int(np.prod(tensor.shape)) * dtype.itemsize
    if shards[-1] and shard_bytes + tensor_bytes > max_shard_bytes:
      shards.append([])
      shard_bytes = 0
    shards[-1].append(tensor)
    shard_bytes += tensor_bytes
    total_bytes += tensor_bytes
  if len(shards) == 1:
    tensor_file.write_file(staging / importing.SINGLE_FILE, shards[0], dtype)
    return
  weight_map = {}
  for number, shard in enumerate(shards, start=1):
    name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    tensor_file.write_file(staging / name, shard, dtype)
    weight_map |= {tensor.name: name for tensor in shard}
  staging_lib.write_json(
    staging / importing.INDEX_FILE,
    {"metadata": {"total_size": total_bytes}, "weight_map": weight_map},
  )


def _pending(arch, params, param_dtype) -> Iterator[tensor_file.PendingTensor]:
  """Every tensor of the model; nothing is fetched yet."""
  for slot in mapping.slots(arch):
    leaf = mapping.get(params, slot.row.path)
    if leaf.shape != slot.shape:
      raise errors.CheckpointError(
        f"parameter {slot.row.path} has shape {list(leaf.shape)}, the "
        f"architecture needs {list(slot.shape)}"
      )
    for layer, name in enumerate(slot.hf_names()):
      yield tensor_file.PendingTensor(
        name,
        slot.hf_shape,
        functools.partial(
          _fetch,
          leaf,
          layer if slot.row.stacked else None,
          slot.row,
          param_dtype,
        ),
      )


def _fetch(
  leaf, layer: int | None, row: mapping.Row, param_dtype
) -> np.ndarray:
  part = leaf if layer is None else leaf[layer]
  return np.asarray(_to_stored(part, row, param_dtype))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _to_stored(array, row: mapping.Row, param_dtype: str):
  return row.to_hf(array).astype(param_dtype)


def _verify(staging, arch, params, param_dtype, tokenizer) -> None:
  """Reads `staging` back and compares.

  Raises:
    CheckpointError: it is another model, or another tokenizer.
  """
  _verify_tokenizer(staging, tokenizer)
  # Cast outside the probe: inside one program XLA may skip the rounding.
  expected = jax.tree.map(lambda x: jnp.asarray(x, param_dtype), params)
  read_arch, read = importing.load_checkpoint(
    staging,
    dtype=arch.dtype,
    param_dtype=param_dtype,
    remat=arch.remat,
    mesh=_mesh_of(expected),
  )
  if read_arch != arch:
    raise errors.CheckpointError(
      f"the export reads back as {read_arch}, not {arch}"
    )
  # The same placement gives the same program, so the logits can be equal.
  read = jax.tree.map(
    lambda x, y: jax.device_put(x, y.sharding), read, expected
  )
  for slot in mapping.slots(arch):
    path = slot.row.path
    if not _same_bits(mapping.get(read, path), mapping.get(expected, path)):
      raise errors.CheckpointError(
        f"the export does not read back: parameter {path} differs"
      )
  tokens = np.random.default_rng(0).integers(
    arch.vocab_size, size=_PROBE_TOKENS
  )
  # On the host: numpy's max keeps a NaN, XLA's may drop it.
  want = np.asarray(_probe(arch, expected, tokens))
  got = np.asarray(_probe(arch, read, tokens))
  difference = np.max(np.abs(want - got))
  # Not "difference > ...": a NaN must fail too.
  if not difference <= _TOLERANCE * max(1.0, np.max(np.abs(want))):
    raise errors.CheckpointError(
      f"the export does not read back: logits differ by {difference}"
    )


def _verify_tokenizer(staging, tokenizer) -> None:
  if tokenizer is None:
    return
  read = tokenizer_lib.HfTokenizer.from_directory(staging)
  same = read.eos_ids == tokenizer.eos_ids and read.pad_id == tokenizer.pad_id
  for message in _PROBE_MESSAGES:
    same &= read.encode(message.content) == tokenizer.encode(message.content)
    same &= read.render_chat([message]) == tokenizer.render_chat([message])
  if not same:
    raise errors.CheckpointError(
      "the export does not read back: the tokenizer gives other ids"
    )


def _mesh_of(params: transformer.Params) -> Mesh | None:
  """The mesh to read back onto, so that no device needs the whole model."""
  sharding = params["embedding_VD"].sharding
  if not isinstance(sharding, NamedSharding):
    return None
  mesh = sharding.mesh
  if isinstance(mesh, Mesh) and set(mesh_axes.AXES) <= set(mesh.axis_names):
    return mesh
  return None


@jax.jit
def _same_bits(left, right):
  bits = {4: jnp.uint32, 2: jnp.uint16}[left.dtype.itemsize]
  left, right = (jax.lax.bitcast_convert_type(x, bits) for x in (left, right))
  return jnp.all(left == right)


@functools.partial(jax.jit, static_argnums=0)
def _probe(arch, params, tokens_T):
  """float32 logits [1, T, V]."""
  tokens_BT = jnp.asarray(tokens_T, jnp.int32)[None]
  length = tokens_BT.shape[1]
  attend = attention.tree_attend(jnp.full((1, length), length))
  hidden_BTD, _ = transformer.forward(
    arch, params, tokens_BT, jnp.arange(length)[None], attend
  )
  return transformer.project_logits(arch, params, hidden_BTD)
