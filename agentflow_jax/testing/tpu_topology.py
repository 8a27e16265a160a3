"""Devices of a TPU that is not there: programs compile for them, none runs.

XLA's TPU compiler comes with `libtpu` (the [tpu] extra) and needs no TPU.
"""

import importlib.util
import os
from typing import Any

from jax.experimental import topologies

from agentflow_jax.core import errors

# What libtpu would ask a cloud machine's metadata server; nothing depends on
# the answers, and without them it waits and complains.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # we take no TPU from anyone
}


def available() -> bool:
  """Whether the TPU compiler is installed."""
  return importlib.util.find_spec("libtpu") is not None


def devices(name: str) -> list[Any]:
  """The devices of a topology, for `sharding.make_mesh(devices=...)`.

  Args:
    name: e.g. "v5e:2x2" (4 chips) or "v5p:2x2x1".

  Raises:
    UserError: libtpu is not installed.
  """
  if not available():
    raise errors.UserError(
      f"compiling for {name} needs libtpu: pip install 'agentflow_jax[tpu]'"
    )
  for key, value in _ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
  return list(topology.devices)
