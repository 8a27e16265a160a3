"""The tunix peer: its vanilla `Sampler` over its Qwen2, static batches.

One sampler per turn with a cache of exactly that turn's length, because every
decode step reads the whole cache. Tried on one device and with the batch split
over all of them. Needs the [bench] extra.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.generate import sampler as tunix_sampler
from tunix.models.qwen2 import model as tunix_qwen2

from agentflow_jax.benchmarks import peers, workloads
from agentflow_jax.models import architecture as architecture_lib

_NO_EOS = -1  # lengths are fixed


class _Ids:
  """A tokenizer for prompts that are ids already."""

  def encode(self, ids: Sequence[int]) -> list[int]:
    return list(ids)

  def decode(self, ids: Sequence[int]) -> str:
    del ids
    return ""

  def bos_id(self) -> int:
    return 0  # falsy: none is added

  def eos_id(self) -> int:
    return _NO_EOS

  def pad_id(self) -> int:
    return 0


def load(arch: architecture_lib.Architecture) -> "TunixModel":
  """Random parameters in float32."""
  return TunixModel(arch)


class TunixModel:
  """A `peers.Model`."""

  def __init__(self, arch: architecture_lib.Architecture):
    self._arch = arch
    self._config = model_config(arch, is_sampling=True)
    self._models: dict[int, nnx.Module] = {}
    self._samplers: dict[tuple[int, int], tunix_sampler.Sampler] = {}

  def options(self, shape: workloads.Shape) -> list[dict[str, Any]]:
    return [
      {"batch": size, "devices": devices}
      for size in peers.batch_sizes(shape.rows)
      for devices in sorted({1, len(jax.devices())})
      if size % devices == 0
    ]

  def generate(self, calls: list[workloads.Call], devices: int) -> list[int]:
    count = max(call.completion_tokens for call in calls)
    prompt_tokens = len(calls[0].prompt)
    with mesh(devices):
      sampler = self._sampler(prompt_tokens + count, devices)
      output = sampler(
        [call.prompt.tolist() for call in calls],
        max_generation_steps=count,
        max_prompt_length=prompt_tokens,
        eos_tokens=[_NO_EOS],
        temperature=1.0,
        top_p=1.0,  # samples; without it the sampler is greedy
        seed=0,
      )
    return [len(np.asarray(tokens)) for tokens in output.tokens]

  def _sampler(self, cache_tokens: int, devices: int) -> tunix_sampler.Sampler:
    key = (cache_tokens, devices)
    if key not in self._samplers:
      if devices not in self._models:
        self._models[devices] = new_model(self._arch, is_sampling=True)
      config = self._config
      self._samplers[key] = tunix_sampler.Sampler(
        self._models[devices],
        _Ids(),
        tunix_sampler.CacheConfig(
          cache_size=cache_tokens,
          num_layers=config.num_layers,
          num_kv_heads=config.num_kv_heads,
          head_dim=config.head_dim,
        ),
      )
    return self._samplers[key]


def model_config(
  arch: architecture_lib.Architecture, *, is_sampling: bool
) -> tunix_qwen2.ModelConfig:
  """tunix's description of the same network."""
  return tunix_qwen2.ModelConfig(
    num_layers=arch.num_layers,
    vocab_size=arch.vocab_size,
    embed_dim=arch.hidden_size,
    hidden_dim=arch.intermediate_size,
    num_heads=arch.num_heads,
    head_dim=arch.head_dim,
    num_kv_heads=arch.num_kv_heads,
    rope_theta=int(arch.rope_theta),
    norm_eps=arch.rms_norm_eps,
    use_tied_embedding=arch.tie_embeddings,
    shd_config=tunix_qwen2.ShardingConfig.get_default_sharding(
      is_sampling=is_sampling
    ),
  )


def new_model(
  arch: architecture_lib.Architecture, *, is_sampling: bool
) -> nnx.Module:
  """Random parameters, on the mesh in force if there is one."""
  config = model_config(arch, is_sampling=is_sampling)

  @nnx.jit
  def make():
    return tunix_qwen2.Qwen2(config, rngs=nnx.Rngs(0))

  return make()


def mesh(devices: int):
  """The mesh that tunix's shardings name; nothing for one device."""
  if devices == 1:
    return contextlib.nullcontext()
  auto = (jax.sharding.AxisType.Auto,) * 2
  return jax.set_mesh(
    jax.make_mesh((devices, 1), ("fsdp", "tp"), axis_types=auto)
  )
