"""Which mesh axis splits which array axis: the one table, and its use in jit.

The capital letters that end a parameter's name are its logical axes (`q_DNH`
is D, N, H) and `_MESH_AXIS` sends each letter to a mesh axis. Layers carry one
more leading axis, L, which is never split (it is scanned). Batch rows are
split over `BATCH_AXES`.

Parameters say under jit on which mesh they live, so the network needs no mesh
argument: where they are split, it pins its activations to whole rows and
gathers a layer's weights just before use (fully sharded data parallelism).
Left alone, XLA may split activations over D instead and shuffle them.

Logical axes: D model, N query heads, K key/value heads, H head dim, F
feed-forward, V vocabulary, R rank of an adapter.
"""

from collections.abc import Container
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import DictKey

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

_MESH_AXIS = {
  "V": "tensor",
  "N": "tensor",
  "K": "tensor",
  "F": "tensor",
  "D": "fsdp",
  "H": None,
  "R": None,
}


def param_spec(name: str, ndim: int) -> PartitionSpec:
  """How the parameter called `name` (its last path element) is split.

  Names without axis letters (norm scales) are replicated.
  """
  letters = name.rpartition("_")[2]
  if not letters.isupper():
    return PartitionSpec()
  axes = [_MESH_AXIS[letter] for letter in letters]
  return PartitionSpec(*[None] * (ndim - len(axes)), *axes)


def mesh_of_params(params: Any):
  """The mesh that splits `params`, else None (one device, replicated, numpy).

  Inside jit this is the abstract mesh of the arguments' shardings.
  """
  mesh = jax.typeof(params["embedding_VD"]).sharding.mesh
  shape = dict(mesh.shape)
  split = shape.get("fsdp", 1) * shape.get("tensor", 1)
  return mesh if split > 1 else None


def platform(mesh) -> str:
  """Where programs over `mesh` (if empty: of this process) run: cpu, tpu, ...

  So a program compiled on one machine for another gets the other's kernels.
  """
  device = mesh.abstract_device
  kind = jax.default_backend() if device is None else device.device_kind
  return "tpu" if kind.lower().startswith("tpu") else kind.lower()


def split_axes(mesh) -> set[str]:
  """The axes of a mesh along which there is more than one device.

  A program for each device should know of these alone: along the others its
  gradients would be summed too, over one device.
  """
  return {axis for axis, size in dict(mesh.shape).items() if size > 1}


def row_axes(rows: int, mesh) -> tuple[str, ...] | None:
  """The batch axes that split so many rows evenly, as a PartitionSpec entry."""
  axes = []
  for axis in BATCH_AXES:
    size = dict(mesh.shape).get(axis, 1)
    if size > 1 and rows % size == 0:
      axes.append(axis)
      rows //= size
  return tuple(axes) or None


def pin_rows(x, mesh):
  """Axis 0 over the batch axes that divide it, all other axes whole."""
  if mesh is None:
    return x
  spec = PartitionSpec(row_axes(x.shape[0], mesh))
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def gather_over_fsdp(params: Any, mesh, dtype: str):
  """Matrices and biases cast to `dtype`, whole over fsdp, split over tensor.

  The cast comes first, so that bfloat16 computation moves half the bytes.
  """
  if mesh is None:
    return params

  def gather(leaf, spec):
    if not spec:
      return leaf
    return jax.lax.with_sharding_constraint(
      leaf.astype(dtype), NamedSharding(mesh, spec)
    )

  return jax.tree.map(gather, params, gathered_specs(params, mesh.shape))


def gathered_specs(params: Any, axes: Container[str]) -> Any:
  """How every leaf is split over some `axes` once it is whole over fsdp."""

  def spec(path, leaf):
    # The path of an nnx.State ends with an attribute of the Variable.
    name = next(key.key for key in reversed(path) if isinstance(key, DictKey))
    kept = [
      axis if axis != "fsdp" and axis in axes else None
      for axis in param_spec(name, leaf.ndim)
    ]
    return PartitionSpec(*kept)

  return jax.tree_util.tree_map_with_path(spec, params)
