"""The transformers peer: `generate` of Qwen2 in PyTorch, static batches.

Sampling at temperature 1 without truncation and without an eos, as all systems
do here; torch uses one thread per core. Needs the [bench] extra.
"""

import os
from typing import Any

import numpy as np
import torch
import transformers

from agentflow_jax.benchmarks import peers, workloads
from agentflow_jax.models import architecture as architecture_lib


def load(arch: architecture_lib.Architecture) -> "HfModel":
  """Random parameters in float32."""
  return HfModel(arch)


class HfModel:
  """A `peers.Model`."""

  def __init__(self, arch: architecture_lib.Architecture):
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
      **architecture_lib.to_hf_config(arch, param_dtype="float32")
    )
    self._model = transformers.Qwen2ForCausalLM(config).eval()
    settings = self._model.generation_config
    settings.eos_token_id = None  # lengths are fixed
    settings.pad_token_id = 0

  def options(self, shape: workloads.Shape) -> list[dict[str, Any]]:
    return [
      {"batch": size, "cache": cache}
      for size in peers.batch_sizes(shape.rows)
      for cache in ("dynamic", "static")
    ]

  def generate(self, calls: list[workloads.Call], cache: str) -> list[int]:
    prompt_BT = torch.from_numpy(np.stack([call.prompt for call in calls]))
    count = max(call.completion_tokens for call in calls)
    with torch.inference_mode():
      ids_BT = self._model.generate(
        prompt_BT.long(),
        attention_mask=torch.ones_like(prompt_BT),
        max_new_tokens=count,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        cache_implementation=cache,
        disable_compile=True,  # on CPU compiling is slower than it saves
      )
    return [ids_BT.shape[1] - prompt_BT.shape[1]] * len(calls)
