"""reshard shares buffers where it can, snapshot never does; equal values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from agentflow_jax.training import weight_sync


def _mesh(shape, names=("a", "b"), devices=None) -> Mesh:
  return jax.make_mesh(
    shape,
    names,
    axis_types=(AxisType.Auto,) * len(names),
    devices=devices,
  )


def _params():
  return {
    "w": jnp.arange(64.0).reshape(8, 8),
    "deep": {"b": jnp.arange(8, dtype=jnp.bfloat16)},
  }


def _pointers(tree) -> list[int]:
  return [
    shard.data.unsafe_buffer_pointer()
    for leaf in jax.tree.leaves(tree)
    for shard in leaf.addressable_shards
  ]


def _check(result, shardings):
  for leaf, original, sharding in zip(
    jax.tree.leaves(result),
    jax.tree.leaves(_params()),
    jax.tree.leaves(shardings),
    strict=True,
  ):
    assert leaf.sharding == sharding
    assert leaf.dtype == original.dtype
    np.testing.assert_array_equal(np.asarray(leaf), np.asarray(original))


def test_equal_shardings_share_the_buffers():
  mesh = _mesh((2, 4))
  shardings = {
    "w": NamedSharding(mesh, P("a", "b")),
    "deep": {"b": NamedSharding(mesh, P())},
  }
  params = jax.device_put(_params(), shardings)
  result = weight_sync.reshard(params, shardings)
  assert result["w"] is params["w"]
  assert _pointers(result) == _pointers(params)


def test_the_same_layout_spelled_otherwise_shares_the_buffers():
  first, second = _mesh((8,), ("x",)), _mesh((2, 4))
  params = {"w": jax.device_put(jnp.arange(8.0), NamedSharding(first, P("x")))}
  target = {"w": NamedSharding(second, P(("a", "b")))}
  assert _pointers(weight_sync.reshard(params, target)) == _pointers(params)


def test_another_mesh_gets_the_same_values():
  wide, narrow = _mesh((8,), ("x",)), _mesh((2, 4))
  params = jax.device_put(
    _params(),
    {
      "w": NamedSharding(wide, P("x")),
      "deep": {"b": NamedSharding(wide, P("x"))},
    },
  )
  shardings = {
    "w": NamedSharding(narrow, P("b", "a")),
    "deep": {"b": NamedSharding(narrow, P())},
  }
  _check(weight_sync.reshard(params, shardings), shardings)


def test_a_smaller_mesh_gets_the_same_values():
  wide = _mesh((8,), ("x",))
  small = _mesh((2,), ("y",), jax.devices()[2:4])
  params = jax.device_put(_params(), NamedSharding(wide, P("x")))
  shardings = jax.tree.map(lambda _: NamedSharding(small, P("y")), params)
  _check(weight_sync.reshard(params, shardings), shardings)


def test_only_what_differs_is_copied():
  mesh = _mesh((2, 4))
  whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("a"))
  params = jax.device_put(_params(), whole)
  result = weight_sync.reshard(params, {"w": split, "deep": {"b": whole}})
  assert result["deep"]["b"] is params["deep"]["b"]
  assert result["w"].sharding == split


def test_other_structures_are_refused():
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with pytest.raises(ValueError, match="target_shardings"):
    weight_sync.reshard(_params(), {"w": sharding})


def test_a_snapshot_outlives_a_donation():
  mesh = _mesh((2, 4))
  shardings = {
    "w": NamedSharding(mesh, P("a", "b")),
    "deep": {"b": NamedSharding(mesh, P())},
  }
  params = jax.device_put(_params(), shardings)
  result = weight_sync.snapshot(params)
  assert not set(_pointers(result)) & set(_pointers(params))
  jax.block_until_ready(
    jax.jit(lambda p: jax.tree.map(jnp.negative, p), donate_argnums=0)(params)
  )
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
  _check(result, shardings)
