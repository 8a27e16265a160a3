"""Hands the learner's new weights to the sampler.

Where the shardings already agree (one host, one mesh) the very same buffers
are used; elsewhere the arrays move between the meshes on device. In a pod each
process ends up with its own copy on its local mesh.

The result may share buffers with `params`, so it lives only until the learner
donates them in its next update: sync again before the next rollout, or take a
`snapshot` if the sampler goes on during the update.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

Params = Any  # a pytree of jax.Array


def reshard(params: Params, target_shardings: Any) -> Params:
  """`params` with other shardings, without a copy where they have them.

  Args:
    params: a pytree of arrays, dtypes are kept.
    target_shardings: a pytree of shardings of the same structure. Devices of
      this process only, or those of `params`.

  Raises:
    ValueError: the structures differ.
  """
  leaves, structure = jax.tree.flatten(params)
  targets, target_structure = jax.tree.flatten(target_shardings)
  if structure != target_structure:
    raise ValueError(
      f"params are {structure}, target_shardings {target_structure}"
    )
  moved = [
    leaf if _is_there(leaf, target) else _move(leaf, target)
    for leaf, target in zip(leaves, targets, strict=True)
  ]
  return jax.tree.unflatten(structure, moved)


def snapshot(params: Params) -> Params:
  """A copy that shares no buffer, placed alike: donating `params` spares it."""
  return jax.tree.map(jnp.copy, params)


def _is_there(leaf: jax.Array, target: Sharding) -> bool:
  # Equivalent layouts on the same devices, however they are spelled.
  return leaf.sharding.is_equivalent_to(target, leaf.ndim)


def _move(leaf: jax.Array, target: Sharding) -> jax.Array:
  if leaf.is_fully_addressable or not target.is_fully_addressable:
    return jax.device_put(leaf, target)
  # From a mesh over several processes to one of this process: every device
  # first gets the whole array, one parameter at a time.
  assert isinstance(leaf.sharding, NamedSharding)
  everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
  whole = jax.jit(_identity, out_shardings=everywhere)(leaf)
  return jax.device_put(whole.addressable_data(0), target)


def _identity(array: jax.Array) -> jax.Array:
  return array
