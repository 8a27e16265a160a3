"""Models -> samplers -> engines -> the agents that ask them."""

import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Mapping

import jax

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import sandboxes
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import flows
from agentflow_jax.engines import local
from agentflow_jax.models import sharding
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.training import model_loading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
  """Who answers as "trainable" and as "frozen"; may be the same model."""

  policy: model_loading.LoadedModel
  frozen: model_loading.LoadedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuiltAgents:
  """Agents, their engines, and the samplers behind those by name."""

  agents: agents_lib.Agents
  engines: agents_lib.Engines
  samplers: Mapping[str, sampler_lib.Sampler]


@contextlib.asynccontextmanager
async def open_agents(
  config: config_lib.Config,
  models: Models,
  mesh: jax.sharding.Mesh,
  index_dir: pathlib.Path,
) -> AsyncIterator[BuiltAgents]:
  """Compiles the samplers the config asks for and builds the agents on them.

  Everything is closed when the block ends.

  Raises:
    UserError: something that the tools need does not work.
  """
  await sandboxes.check(config)
  by_name = {
    agents_lib.TRAINABLE: models.policy,
    agents_lib.FROZEN: models.frozen,
  }
  samplers: dict[str, sampler_lib.Sampler] = {}
  async with contextlib.AsyncExitStack() as stack:
    for name in sorted(model_engines(config)):
      samplers[name] = build_sampler(config, by_name[name], mesh)
      stack.push_async_callback(samplers[name].close)
      samplers[name].warm_up()
    engines = agents_lib.Engines.of(
      config,
      {
        name: local.LocalEngine(sampler, by_name[name].tokenizer, name)
        for name, sampler in samplers.items()
      },
    )
    stack.push_async_callback(engines.aclose)
    toolbox = agents_lib.build_toolbox(engines, index_dir)
    stack.push_async_callback(toolbox.aclose)
    encode = models.policy.tokenizer.encode
    agents = agents_lib.build_agents(
      engines, toolbox, count_tokens=lambda text: len(encode(text))
    )
    yield BuiltAgents(agents=agents, engines=engines, samplers=samplers)


def build_sampler(
  config: config_lib.Config,
  model: model_loading.LoadedModel,
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
    flows.engine_names(config).values()
  )
