"""The mesh, and where every parameter lives on it (table: `mesh_axes.py`).

XLA inserts the collectives. Nothing here decides which devices hold the
optimizer state or the batches: their owners ask for these shardings.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from agentflow_jax.core import errors
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import lora, mesh_axes, transformer

# The sizes that a mesh axis must divide, by the name the user knows.
_DIVIDED = {
  "tensor": ("num_heads", "num_kv_heads", "intermediate_size", "vocab_size"),
  "fsdp": ("hidden_size",),
}


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """A mesh with the axes data, fsdp and tensor; one -1 takes the rest.

  Args:
    data: devices that hold different batch rows and equal parameters.
    fsdp: devices that split batch rows and parameters (axis D).
    tensor: devices that split heads, feed-forward and vocabulary.
    devices: jax devices to use; None = every device of every process.

  Raises:
    ConfigError: the sizes do not fill the devices exactly.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes: dict[str, int] = dict(
    zip(mesh_axes.AXES, (data, fsdp, tensor), strict=True)
  )
  shown = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
  if any(size < 1 and size != -1 for size in sizes.values()):
    raise errors.ConfigError(f"{shown}: sizes must be positive or -1")
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1:
    raise errors.ConfigError(f"{shown}: only one of them may be -1")
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if len(devices) % fixed or (not free and fixed != len(devices)):
    raise errors.ConfigError(
      f"{shown} does not fit {len(devices)} devices: the sizes multiply to "
      f"{fixed}, which must {'divide' if free else 'be'} {len(devices)}"
    )
  for axis in free:
    sizes[axis] = len(devices) // fixed
  return jax.make_mesh(
    tuple(sizes.values()),
    mesh_axes.AXES,
    axis_types=(AxisType.Auto,) * len(mesh_axes.AXES),
    devices=devices,
  )


def param_shardings(arch: architecture_lib.Architecture, mesh: Mesh):
  """A NamedSharding per parameter, in the structure of `init_params`.

  Raises:
    ConfigError: a size of `arch` is not a multiple of its mesh axis.
  """
  for axis, fields in _DIVIDED.items():
    for field in fields:
      if getattr(arch, field) % mesh.shape[axis]:
        raise errors.ConfigError(
          f"mesh.{axis}={mesh.shape[axis]} does not divide the model's "
          f"{field}={getattr(arch, field)}"
        )
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(
      mesh, mesh_axes.param_spec(path[-1].key, len(leaf.shape))
    ),
    transformer.param_shapes(arch),
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Axis 0 (rows) over data and fsdp, everything else whole."""
  return NamedSharding(mesh, PartitionSpec(mesh_axes.BATCH_AXES))


def init_sharded(
  arch: architecture_lib.Architecture,
  key: jax.Array,
  mesh: Mesh,
  param_dtype: str = "float32",
) -> transformer.Params:
  """Random parameters, each shard made on the device that keeps it.

  Equal to `init_params` on one device, bit for bit.
  """

  def init(key):
    params = transformer.init_params(arch, key)
    return jax.tree.map(lambda x: x.astype(jnp.dtype(param_dtype)), params)

  return jax.jit(init, out_shardings=param_shardings(arch, mesh))(key)


def init_adapters(
  arch: architecture_lib.Architecture, key: jax.Array, mesh: Mesh
) -> transformer.Params:
  """Fresh float32 adapters of an `arch` that has them; no weight is made."""

  def init(key):
    return lora.select(transformer.init_params(arch, key))

  placed = lora.select(param_shardings(arch, mesh))
  return jax.jit(init, out_shardings=placed)(key)
