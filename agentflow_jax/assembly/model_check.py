"""Loads the model a config starts from and lets it say one token.

Flow: directory -> parameters and tokenizer -> a sampler with one slot -> one
token. The sampler has the lengths of the config, so that one which does not fit
the model is found here and not when the run starts.
"""

import asyncio
import dataclasses
import math

import jax

from agentflow_jax.assembly import samplers
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import local
from agentflow_jax.models import sharding
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.training import model_loading

# Programs are compiled in it, which takes minutes for the largest models.
_SAMPLE_S = 600.0


async def sample_one_token(config: config_lib.Config, name: str) -> str:
  """Loads `config.model.checkpoint` and samples from it.

  Args:
    config: validated, with a checkpoint.
    name: of the engine, for messages.

  Returns:
    What was found, for a report: the model's size and where it computed.

  Raises:
    CheckpointError: no model is there, it is damaged, or it says nothing.
    ConfigError: the config does not fit the model or the devices.
    EngineError: the device failed, or has not enough memory.
  """
  devices = jax.local_devices()[: max(1, config.mesh.tensor)]
  mesh = sharding.make_mesh(1, 1, config.mesh.tensor, devices=devices)
  try:
    model, sampler = await asyncio.to_thread(_opened, config, mesh)
    try:
      completion = await _asked(sampler, model, name)
    finally:
      await sampler.close()
  except jax.errors.JaxRuntimeError as error:  # out of memory, most of all
    raise errors.EngineError(f"{config.model.checkpoint}: {error}") from error
  except ValueError as error:  # its tokenizer writes ids that it does not know
    raise errors.CheckpointError(
      f"{config.model.checkpoint}: {error}"
    ) from error
  if not all(map(math.isfinite, completion.logprobs)):
    raise errors.CheckpointError(
      f"{config.model.checkpoint}: its weights give no probabilities (not a "
      "number)"
    )
  size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
  return f"{size / 1e6:,.1f}M parameters on {devices[0].device_kind}"


def _opened(
  config: config_lib.Config, mesh: jax.sharding.Mesh
) -> tuple[model_loading.LoadedModel, sampler_lib.Sampler]:
  model = model_loading.load_model(
    config.model.checkpoint,
    mesh=mesh,
    dtype=config.model.dtype,
    param_dtype=config.model.param_dtype,
  )
  one = dataclasses.replace(config.sampler, slots=1)
  return model, samplers.build_sampler(
    dataclasses.replace(config, sampler=one), model, mesh
  )


async def _asked(
  sampler: sampler_lib.Sampler, model: model_loading.LoadedModel, name: str
) -> engine_lib.Completion:
  return await local.LocalEngine(sampler, model.tokenizer, name).generate(
    (messages_lib.Message("user", "2 + 2 ="),),
    engine_lib.SamplingParams(max_tokens=1),
    engine_lib.CallContext(
      role=messages_lib.ModuleRole.PLANNER,
      stream="check",
      deadline=deadline_lib.Deadline.after(_SAMPLE_S),
    ),
  )
