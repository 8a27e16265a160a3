"""Writes a Hugging Face directory that transformers and we can read.

Flow: a hidden directory beside the target (staging.py) gets config, tokenizer
and weights (streamed from the devices block by block, cut into shards); every
tensor in the files must have the bits of the parameters in memory; read back
with `load_checkpoint` the directory must give their logits and the same token
ids; only then is it renamed.

It runs in one process; the parameters of a multi-host run are exported from
its checkpoint afterwards. Reading back needs room for a second copy, unless
the caller gives its own away (`donate`).
"""

import functools
import math
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
_BLOCK_BYTES = 2**22  # fetched or compared at once
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
  donate: bool = False,
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
    donate: `params` are not needed afterwards, whether or not this succeeds,
      and are deleted on the way. On a CPU, memory then stays within 1.3 times
      theirs, beside 0.2 GB for the compiler (not for bfloat16 computed in
      float32: its head is converted whole); else the copy read back comes on
      top, and before it a rounded one.

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
    _verify_tokenizer(staging, tokenizer)
    exported = _rounded(params, param_dtype, donate)
    _write_weights(staging, arch, exported, param_dtype, max_shard_bytes)
    _verify_tensors(staging, arch, exported, param_dtype)
    _verify_logits(staging, arch, exported, _owned(exported, params, donate))
  logging.info(
    "exported %d parameters to %s", arch.parameter_count(), directory
  )


def _owned(exported, params, donate: bool) -> list[jax.Array]:
  """The exported arrays that nobody needs afterwards."""
  kept = [] if donate else [id(leaf) for leaf in jax.tree.leaves(params)]
  return [x for x in jax.tree.leaves(exported) if id(x) not in kept]


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
        functools.partial(_blocks, leaf, slot, layer, param_dtype),
      )


def _blocks(
  leaf: jax.Array, slot: mapping.Slot, layer: int, param_dtype: str
) -> Iterator[np.ndarray]:
  """The rows of one tensor, some megabytes at a time."""
  total = slot.hf_shape[0]
  step = total
  # A slice of a split array would first put all of it on every device; and
  # host memory is scarce where the parameters are in it, on one CPU device.
  if len(leaf.sharding.device_set) == 1:
    row_bytes = 4 * math.prod(slot.hf_shape[1:])
    step = max(1, min(total, _BLOCK_BYTES // row_bytes))
  for start in range(0, total, step):
    rows = min(step, total - start)
    yield np.asarray(_to_stored(leaf, layer, start, slot, rows, param_dtype))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _to_stored(leaf, layer, start, slot: mapping.Slot, rows, param_dtype):
  """`rows` rows of the tensor that stores `layer` of a parameter."""
  part = leaf
  if slot.row.stacked:
    part = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
  stored = slot.row.to_hf(part)
  if rows < stored.shape[0]:
    stored = jax.lax.dynamic_slice_in_dim(stored, start, rows)
  return stored.astype(param_dtype)


def _rounded(params, param_dtype: str, donate: bool) -> transformer.Params:
  """`params` with the values the export will have; the same arrays if it can.

  Not inside the probe: in one program XLA may skip the rounding.
  """
  if param_dtype == "float32":
    return params
  leaves, structure = jax.tree.flatten(params)
  # Smallest first: the last ones then have room that the others gave back.
  for i in sorted(range(len(leaves)), key=lambda i: leaves[i].size):
    rounded = jax.block_until_ready(jnp.asarray(leaves[i], param_dtype))
    if donate and rounded is not leaves[i]:
      leaves[i].delete()
    leaves[i] = rounded
  return jax.tree.unflatten(structure, leaves)


def _verify_tensors(staging, arch, params, param_dtype) -> None:
  """Compares the bits in the files with those of `params`, block by block."""
  stored = importing.stored_tensors(staging)
  for tensor in _pending(arch, params, param_dtype):
    if tensor.name not in stored:
      raise errors.CheckpointError(
        f"the export does not read back: tensor {tensor.name} is missing"
      )
    row = 0
    for block in tensor.blocks():
      read = stored[tensor.name].read(row, row + len(block))
      row += len(block)
      bits = f"u{block.dtype.itemsize}"
      if read.dtype != block.dtype or not np.array_equal(
        read.view(bits), block.view(bits)
      ):
        raise errors.CheckpointError(
          f"the export does not read back: tensor {tensor.name} differs"
        )


def _verify_logits(staging, arch, params, owned) -> None:
  """Reads `staging` back as a model, which must give the logits of `params`.

  Args:
    owned: arrays among `params` that are deleted before the model is read.

  Raises:
    CheckpointError: it is another model.
  """
  tokens = np.random.default_rng(0).integers(
    arch.vocab_size, size=_PROBE_TOKENS
  )
  # On the host: numpy's max keeps a NaN, XLA's may drop it.
  want = np.asarray(_probe(arch, params, tokens))
  leaves = jax.tree.leaves(params)
  mesh, places = _mesh_of(params), [leaf.sharding for leaf in leaves]
  # Stored float32 that was bfloat16 in memory goes back into it unchanged.
  half = all(leaf.dtype == jnp.bfloat16 for leaf in leaves)
  for leaf in owned:
    leaf.delete()
  read_arch, read = importing.load_checkpoint(
    staging,
    dtype=arch.dtype,
    param_dtype="bfloat16" if half else "float32",
    remat=arch.remat,
    mesh=mesh,
  )
  if read_arch != arch:
    raise errors.CheckpointError(
      f"the export reads back as {read_arch}, not {arch}"
    )
  # The same placement gives the same program, so the logits can be equal.
  leaves, structure = jax.tree.flatten(read)
  del read
  for i, place in enumerate(places):  # one by one, a copy takes no more room
    leaves[i] = jax.device_put(leaves[i], place)
  got = np.asarray(_probe(arch, jax.tree.unflatten(structure, leaves), tokens))
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


def _probe(arch, params, tokens_T):
  """float32 logits [1, T, V]."""
  (platform,) = {x.platform for x in params["embedding_VD"].devices()}
  probe = _probe_on_cpu if platform == "cpu" else _probe_elsewhere
  return probe(arch, params, tokens_T)


def _logits(arch, params, tokens_T):
  tokens_BT = jnp.asarray(tokens_T, jnp.int32)[None]
  length = tokens_BT.shape[1]
  attend = attention.tree_attend(jnp.full((1, length), length))
  hidden_BTD, _ = transformer.forward(
    arch, params, tokens_BT, jnp.arange(length)[None], attend
  )
  return transformer.project_logits(arch, params, hidden_BTD)


_probe_elsewhere = jax.jit(_logits, static_argnums=0)
# A CPU multiplies bfloat16 as float32. Out of the loop over layers, that
# conversion would make a float32 copy of all layers at once.
_probe_on_cpu = jax.jit(
  _logits,
  static_argnums=0,
  compiler_options={
    "xla_disable_hlo_passes": "while-loop-invariant-code-motion"
  },
)
