"""A pod of two processes: one checkpoint together, weights for each alone."""

import socket
import subprocess
import sys

import pytest

_PROCESS = """
import os, sys
index, port, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
import jax.numpy as jnp, numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from agentflow_jax.training import checkpointing, weight_sync

def mesh(name, devices):
  return jax.make_mesh(
    (len(devices),), (name,), axis_types=(AxisType.Auto,), devices=devices)

pod, own = mesh("a", jax.devices()), mesh("b", jax.local_devices())
values = np.arange(32, dtype=np.float32).reshape(8, 4)

def place(array, sharding):
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: array[index])

with checkpointing.Checkpointer(path, keep_last=2, keep_best=True) as saved:
  for step in (1, 2, 3, 4):
    w = place(values + step, NamedSharding(pod, P("a")))
    saved.save(step, {"w": w}, {"position": step},
               metrics={"accuracy": -float(step)})
multihost_utils.sync_global_devices("saved")
assert saved.all_steps() == [1, 3, 4], saved.all_steps()
shape = jax.ShapeDtypeStruct(
  (8, 4), jnp.float32, sharding=NamedSharding(pod, P(None, "a")))
state, extra = saved.restore({"w": shape})
assert extra == {"position": 4}
for shard in state["w"].addressable_shards:
  np.testing.assert_array_equal(
    np.asarray(shard.data), (values + 4)[shard.index])
local = weight_sync.reshard(state, {"w": NamedSharding(own, P("b"))})
assert local["w"].is_fully_addressable
np.testing.assert_array_equal(np.asarray(local["w"]), values + 4)
print("all well")
"""


@pytest.mark.slow
def test_two_processes_save_restore_and_reshard(tmp_path):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _PROCESS, str(i), str(port), str(tmp_path / "c")],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  for process in processes:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "all well" in out
