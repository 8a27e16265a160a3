"""The two device programs, `extend` and `decode`, compiled once each.

Both take and return the donated cache. Why bits do not depend on the schedule:
a chunk is always computed alone, in the same shape, at the same alignment,
reading earlier blocks in order; decode has groups of fixed width and windows of
fixed length (decoding.py). Decode starts by computing the last prompt token
once more: prefill needs no logits, and one program draws every token.

With a mesh, slots are split over its "data" axis and every device works
through its own operations and rows without talking to the others; the other
axes split parameters and heads as XLA sees fit.

Compiled ahead of time: a call that does not fit is an error, never a compile.

Axes: P shard ("data" device), R operation, S slot, T decode step, X line of the
decode output, C token of a chunk.
"""

import contextlib
import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.sampler import cache as cache_lib
from agentflow_jax.sampler import decoding, device, layout

_TENSOR_AXIS = "tensor"
# Samplers that share devices run in threads of their own. Programs with
# collectives must reach every device in one order, or they wait forever.
_LAUNCH = threading.Lock()
_DATA = PartitionSpec(layout.DATA_AXIS)
_BY_STEP = PartitionSpec(None, layout.DATA_AXIS)
_SLOTS = PartitionSpec(None, None, layout.DATA_AXIS)


class Programs:
  """Compiles and runs `extend` and `decode`; keeps no state of its own."""

  def __init__(
    self,
    arch: architecture_lib.Architecture,
    geometry: layout.Geometry,
    mesh: Mesh,
    eos_ids: tuple[int, ...],
  ):
    self._arch = arch
    self.geometry = geometry
    self._mesh = mesh
    self._eos_ids = eos_ids
    self._compiled: dict[str, Any] = {}
    has_collectives = mesh.size > geometry.shards
    self._launch = _LAUNCH if has_collectives else contextlib.nullcontext()

  @property
  def vocab_size(self) -> int:
    return self._arch.vocab_size

  @property
  def compiles(self) -> int:
    return len(self._compiled)

  def cache_shapes(self) -> cache_lib.KVCache:
    """Shapes and shardings of the cache, in the architecture's dtype."""
    arch, geometry = self._arch, self.geometry
    lead = (arch.num_layers, geometry.pages, geometry.slots, arch.num_kv_heads)
    sizes = (arch.head_dim, geometry.page_tokens)
    tensor = self._mesh.shape.get(_TENSOR_AXIS, 1)
    split = tensor > 1 and arch.num_kv_heads % tensor == 0
    spec = (*_SLOTS, _TENSOR_AXIS if split else None)
    shape = lambda tail: jax.ShapeDtypeStruct(
      (*lead, *tail), jnp.dtype(arch.dtype), sharding=self._on_mesh(spec)
    )
    return cache_lib.KVCache(
      keys_LJSKHX=shape(sizes),
      values_LJSKXH=shape(sizes[::-1]),
      block_tokens=geometry.block_tokens,
    )

  def new_cache(self) -> cache_lib.KVCache:
    """An all-zero cache on the mesh."""
    return self._compiled["zeros"]()

  def lower(self, name: str, params) -> jax.stages.Lowered:
    """Traces `extend` or `decode` for arrays, or shapes with shardings."""
    function, arguments, outputs = {
      "extend": (device.extend, self._operation_shapes(), ()),
      "decode": (
        functools.partial(decoding.decode, eos_ids=self._eos_ids),
        self._row_shapes(),
        _BY_STEP,
      ),
    }[name]
    local = jax.shard_map(
      functools.partial(function, self._arch, self.geometry),
      mesh=self._mesh,
      in_specs=(PartitionSpec(), _SLOTS, *(_DATA for _ in arguments)),
      out_specs=(_SLOTS, outputs),
      axis_names={layout.DATA_AXIS},
      check_vma=False,
    )
    cache = self.cache_shapes()
    cache_shardings = jax.tree.map(lambda x: x.sharding, cache)
    program = jax.jit(
      local,
      donate_argnums=1,
      in_shardings=(
        jax.tree.map(lambda x: x.sharding, params),
        cache_shardings,
        *(self._on_mesh(_DATA) for _ in arguments),
      ),
      out_shardings=(cache_shardings, jax.tree.map(self._on_mesh, outputs)),
    )
    return program.lower(params, cache, *arguments)

  def compile(self, params) -> None:
    """Compiles everything, once, for parameters like these."""
    if self._compiled:
      return
    shapes, geometry = self.cache_shapes(), self.geometry
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    logging.info(
      "KV cache: %d slots of %d tokens, %.1f MiB over %d devices",
      geometry.slots,
      geometry.pages * geometry.page_tokens,
      size / 2**20,
      self._mesh.size,
    )
    zeros = jax.jit(
      lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
      out_shardings=jax.tree.map(lambda x: x.sharding, shapes),
    )
    self._compiled = {
      "zeros": zeros.lower().compile(),
      "extend": self.lower("extend", params).compile(),
      "decode": self.lower("decode", params).compile(),
    }

  def row_steps(self, drawn_S) -> int:
    """Rows computed in a dispatch; a group runs until its last row ends."""
    size = self.geometry.group_rows
    return int(drawn_S.reshape(-1, size).max(axis=1).sum()) * size

  def _on_mesh(self, spec) -> NamedSharding:
    return NamedSharding(self._mesh, PartitionSpec(*spec))

  def _operation_shapes(self):
    lead = (self.geometry.shards, layout.OPERATIONS)
    return (
      jax.ShapeDtypeStruct(lead[:1], jnp.int32),
      jax.ShapeDtypeStruct((*lead, len(layout.Op)), jnp.int32),
      jax.ShapeDtypeStruct((*lead, self.geometry.block_tokens), jnp.int32),
    )

  def _row_shapes(self):
    slots = self.geometry.slots
    return (
      jax.ShapeDtypeStruct((self.geometry.shards,), jnp.int32),
      jax.ShapeDtypeStruct((slots, len(layout.Row)), jnp.int32),
      jax.ShapeDtypeStruct((slots, len(layout.Knob)), jnp.float32),
    )

  def extend(self, params, cache, count_P, ops_PR, tokens_PRC):
    """Runs each shard's first `count` operations in order; the new cache."""
    run = self._compiled["extend"]
    with self._launch:
      cache, _ = run(params, cache, count_P, ops_PR, tokens_PRC)
    return cache

  def decode(self, params, cache, windows, rows_S, knobs_S):
    """Draws up to `windows * decode_steps` tokens per row.

    Args:
      params: as given to `compile`.
      cache: donated.
      windows: at most `geometry.windows`.
      rows_S: int32 [S, len(layout.Row)].
      knobs_S: float32 [S, len(layout.Knob)].

    Returns:
      (cache, tokens_TS int32, logprobs_TS float32, drawn_S int32) as numpy;
      row s drew the first `drawn_S[s]` of its tokens. A row that drew all it
      could and neither ended nor ran out has as many more tokens in its slot.
    """
    run = self._compiled["decode"]
    windows_P = np.full(self.geometry.shards, windows, np.int32)
    with self._launch:
      cache, out_XS = run(params, cache, windows_P, rows_S, knobs_S)
    lines_XS = np.asarray(out_XS)  # the dispatch's only transfer to the host
    steps = self.geometry.most_steps
    return (
      cache,
      lines_XS[:steps],
      lines_XS[steps : 2 * steps].view(np.float32),
      lines_XS[-1],
    )
