"""Config files loaded, and everything they build but the weights."""

import dataclasses
import importlib.util
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.assembly import samplers
from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rules
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import optimizer
from agentflow_jax.models import presets, sharding
from agentflow_jax.sampler import cache, layout, programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs").glob("*.py"))
# Loss entries of a micro-batch: two full completions per row.
_ENTRIES = 4096


def load(file: pathlib.Path) -> tuple[config_lib.Config, str]:
  """The config of a file, and its docstring."""
  spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(), module.__doc__ or ""


def by_name(name: str) -> tuple[config_lib.Config, str]:
  return load(ROOT / "configs" / f"{name}.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
  """The parts of a run as shapes on a mesh; nothing is allocated."""

  config: config_lib.Config
  mesh: jax.sharding.Mesh
  learner: learner_lib.Learner
  params: Any
  opt_state: Any
  batch: device_batch.TrainBatch  # numpy, one micro-batch
  programs: programs.Programs

  @property
  def arch(self):
    return architecture(self.config)


def architecture(config: config_lib.Config):
  return dataclasses.replace(
    presets.ARCHITECTURES[config.model.preset],
    dtype=config.model.dtype,
    remat=config.model.remat,
  )


def build(config: config_lib.Config, devices: int) -> Built:
  """What assembly/trainer.py builds from the config, on virtual devices."""
  arch = architecture(config)
  mesh = sharding.make_mesh(
    **dataclasses.asdict(config.mesh), devices=jax.devices()[:devices]
  )
  shardings = sharding.param_shardings(arch, mesh)
  params = jax.tree.map(
    lambda shape, placed: jax.ShapeDtypeStruct(
      shape.shape, jnp.dtype(config.model.param_dtype), sharding=placed
    ),
    sharding.transformer.param_shapes(arch),
    shardings,
  )
  steps = config_rules.optimizer_steps(config)
  opt = optimizer.Optimizer(config.learner, steps)
  replicated = jax.sharding.NamedSharding(mesh, jax.P())
  opt_state = jax.tree.map(
    lambda shape, placed: jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=placed
    ),
    jax.eval_shape(opt.init, params),
    opt.state_shardings(params, shardings, replicated),
  )
  return Built(
    config=config,
    mesh=mesh,
    learner=learner_lib.Learner(
      arch,
      config.learner,
      temperature=config.sampler.temperature,
      mesh=mesh,
      total_steps=steps,
    ),
    params=params,
    opt_state=opt_state,
    batch=_micro_batch(config, mesh),
    programs=_programs(config, mesh),
  )


def _micro_batch(config, mesh) -> device_batch.TrainBatch:
  rows = device_batch.local_batch_rows(mesh, config.learner.micro_batch_rows)
  (batch,) = device_batch.to_micro_batches(
    [],
    row_tokens=config.learner.row_tokens,
    batch_rows=rows,
    batches=1,
    entries=_ENTRIES,
  )
  return batch


def _programs(config, mesh) -> programs.Programs:
  """As sampler.Sampler makes them."""
  arch, sampler = architecture(config), config.sampler
  mesh = samplers.sampling_mesh(config, mesh)
  shards = mesh.shape[layout.DATA_AXIS]
  geometry = layout.Geometry.of(
    slots=sampler.slots,
    shards=shards,
    tokens=sampler.max_prompt_tokens + sampler.max_completion_tokens,
    block_tokens=sampler.prefill_chunk_tokens,
    steps=sampler.decode_steps,
    max_positions=arch.max_positions,
    lockstep=shards not in (1, mesh.size),
  )
  return programs.Programs(arch, geometry, mesh, (0,))


def cache_bytes(built: Built) -> int:
  shapes: cache.KVCache = built.programs.cache_shapes()
  return device_bytes(shapes)


def device_bytes(tree) -> int:
  """Bytes on one device."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    size = leaf.dtype.itemsize
    for length in leaf.sharding.shard_shape(leaf.shape):
      size *= length
    total += size
  return total


def memory_gb(built: Built) -> dict[str, float]:
  """What a device holds while it trains, by purpose, in 1e9 bytes.

  Left out: temporaries of one layer and of one chunk of logits.
  """
  config, arch = built.config, built.arch
  params = device_bytes(built.params)
  whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(built.params))
  engines = samplers.model_engines(config)
  in_place = samplers.sampling_mesh(config, built.mesh) is built.mesh
  inputs = (
    arch.num_layers
    * config.learner.micro_batch_rows
    * config.learner.row_tokens
    * arch.hidden_size
    * jnp.dtype(arch.dtype).itemsize
  )
  parts = {
    "weights": 2 * params,
    "sampler copies": 0 if in_place else len(engines) * whole,
    "optimizer": device_bytes(built.opt_state),
    "gradients": params
    * (1 + 4 // jnp.dtype(config.model.param_dtype).itemsize),
    "caches": len(engines) * cache_bytes(built),
    "layer inputs": inputs,
  }
  parts["sum"] = sum(parts.values())
  return {name: count / 1e9 for name, count in parts.items()}
