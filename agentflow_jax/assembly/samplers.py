"""Samplers: parameters -> engines that answer with them."""

import dataclasses

import jax

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.models import sharding
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.training import checkpointing


def build_sampler(
  config: config_lib.Config,
  model: checkpointing.LoadedModel,
  mesh: jax.sharding.Mesh,
) -> sampler_lib.Sampler:
  """A sampler of the model's parameters on this process's devices."""
  return sampler_lib.Sampler(
    model.arch,
    model.params,
    slots=config.sampler.slots,
    max_prompt_tokens=config.sampler.max_prompt_tokens,
    max_completion_tokens=config.sampler.max_completion_tokens,
    decode_steps=config.sampler.decode_steps,
    prefill_chunk_tokens=config.sampler.prefill_chunk_tokens,
    eos_ids=model.tokenizer.eos_ids,
    decode_text=model.tokenizer.decode,
    mesh=sampling_mesh(config, mesh),
  )


def sampling_mesh(
  config: config_lib.Config, mesh: jax.sharding.Mesh
) -> jax.sharding.Mesh:
  """The learner's mesh where it can be used in place.

  A sampler keeps whole parameters (or tensor shards) on every data device and
  works on this process's devices only.
  """
  if mesh.shape["fsdp"] == 1 and jax.process_count() == 1:
    return mesh
  return sharding.make_mesh(
    -1, 1, config.mesh.tensor, devices=jax.local_devices()
  )


def model_engines(config: config_lib.Config) -> set[str]:
  """Which of "trainable" and "frozen" the config asks for."""
  return {agents_lib.TRAINABLE, agents_lib.FROZEN} & set(
    dataclasses.asdict(config.engines).values()
  )
