"""The training step compiled for TPUs that are not here."""

import dataclasses

import jax
import jax.numpy as jnp
import learner_examples as examples
import pytest

from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import attention, sharding, transformer
from agentflow_jax.testing import tpu_topology


@pytest.mark.slow
@pytest.mark.skipif(
  not tpu_topology.available(), reason="libtpu is not installed ([tpu] extra)"
)
def test_a_long_row_compiles_with_kernels_and_offloaded_inputs():
  arch = dataclasses.replace(
    examples.ARCH, head_dim=64, dtype="bfloat16", remat="offload"
  )
  tokens, rows = attention.DENSE_LIMIT_TOKENS * 2, 4
  config = config_lib.LearnerConfig(
    kl_coefficient=0.1, row_tokens=tokens, micro_batch_rows=1
  )
  mesh = sharding.make_mesh(1, 2, 2, devices=tpu_topology.devices("v5p:2x2x1"))
  learner = learner_lib.Learner(
    arch, config, temperature=0.7, mesh=mesh, total_steps=1
  )
  params = jax.tree.map(
    lambda shape, place: jax.ShapeDtypeStruct(
      shape.shape, jnp.float32, sharding=place
    ),
    transformer.param_shapes(arch),
    sharding.param_shardings(arch, mesh),
  )
  (batch,) = device_batch.to_micro_batches(
    [], row_tokens=tokens, batch_rows=rows, batches=1
  )
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=device_batch.batch_sharding(mesh)
    ),
    batch,
  )
  loss = jax.ShapeDtypeStruct(
    (), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, jax.P())
  )
  compiled = (
    learner._accumulate["flow_grpo"]
    .lower(params, params, params, loss, batch)
    .compile()
  )
  kernels = compiled.as_text().count('custom_call_target="tpu_custom_call"')
  assert kernels >= 4  # forward of policy and reference, d_query, d_key
  memory = compiled.memory_analysis()
  # The inputs of both layers, bfloat16, of this chip's two rows.
  inputs = 2 * arch.num_layers * rows // 2 * tokens * arch.hidden_size
  assert memory.host_temp_size_in_bytes >= inputs
