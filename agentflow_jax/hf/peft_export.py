"""Writes adapters in PEFT's format: adapter_config.json, one safetensors file.

A weight of torch is [out, in], so `lora_A` is [rank, in] and `lora_B` is
[out, rank]: ours, transposed. Names are those of `peft` 0.7 and later around a
transformers model:

  base_model.model.model.layers.3.mlp.up_proj.lora_A.weight

Load it with `peft.PeftModel.from_pretrained(base, DIRECTORY)`.
"""

import pathlib
from typing import Any

import numpy as np

from agentflow_jax.core import errors
from agentflow_jax.hf import mapping, tensor_file
from agentflow_jax.hf import staging as staging_lib
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.models import lora as lora_lib
from agentflow_jax.models import transformer

_PREFIX = "base_model.model."


def export_adapters(
  directory: str | pathlib.Path,
  arch: transformer.Architecture,
  adapters: transformer.Params,
  *,
  base: str,
  tokenizer: tokenizer_lib.HfTokenizer | None = None,
  overwrite: bool = False,
) -> None:
  """Exports the adapters alone.

  Args:
    directory: as in `exporting.export_checkpoint`.
    arch: with `lora`.
    adapters: as `lora.select` returns them, on any mesh of one process.
    base: recorded as base_model_name_or_path.
    tokenizer: its files go along.
    overwrite: replace an earlier export.

  Raises:
    CheckpointError: the target is taken or can not be written.
    ConfigError: `arch` has no adapters.
  """
  lora = arch.lora
  if lora is None:
    raise errors.ConfigError("the model has no adapters to export")
  directory = pathlib.Path(directory).absolute()
  with staging_lib.replacing(directory, overwrite) as staging:
    if tokenizer is not None:
      tokenizer.save(staging)
    tensor_file.write_file(
      staging / "adapter_model.safetensors",
      _tensors(lora, adapters),
      np.dtype(np.float32),
    )
    marker = {"written_by": "agentflow_jax", "rank": lora.rank}
    staging_lib.write_json(staging / staging_lib.MARKER_FILE, marker)
    staging_lib.write_json(
      staging / "adapter_config.json", adapter_config(lora, base)
    )


def adapter_config(lora: lora_lib.Lora, base: str) -> dict[str, Any]:
  """What peft's LoraConfig reads; all else keeps its default there."""
  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": lora.rank,
    "lora_alpha": lora.alpha,
    "lora_dropout": 0.0,
    "target_modules": [adapter.target for adapter in lora.adapters()],
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
  }


def _tensors(
  lora: lora_lib.Lora, adapters: transformer.Params
) -> list[tensor_file.PendingTensor]:
  tensors = []
  for adapter in lora.adapters():
    row = mapping.row_of(f"layers/{adapter.module}/{adapter.weight}")
    pair = adapters["layers"][adapter.module]
    for name, label, inputs in (
      (adapter.a, "lora_A", adapter.inputs),
      (adapter.b, "lora_B", 1),
    ):
      stored = mapping.Row("", row.hf_name, inputs)
      for layer, array in enumerate(np.asarray(pair[name], np.float32)):
        tensor = stored.to_hf(array)
        hf_name = row.hf_name.format(layer=layer).removesuffix(".weight")
        tensors.append(
          tensor_file.PendingTensor(
            f"{_PREFIX}{hf_name}.{label}.weight",
            tensor.shape,
            lambda tensor=tensor: [tensor],
          )
        )
  return tensors
