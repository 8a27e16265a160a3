"""The torch peer of the train suite: Qwen2 of transformers, a row per turn.

The clipped objective over completion tokens, logits for those alone, gradients
summed over micro-batches, one AdamW step: what our learner does, on rows. Rows
are padded on the right, which the causal rule hides from what is trained, so
attention needs no mask and takes its fast path. Needs the [bench] extra.
"""

import os
from typing import Any

import numpy as np
import torch
import transformers

from agentflow_jax.benchmarks import train_workload, workloads
from agentflow_jax.models import architecture as architecture_lib

_CLIP_LOW, _CLIP_HIGH = 0.2, 0.3


def load(arch: architecture_lib.Architecture) -> "TorchTrainer":
  """Random parameters in float32."""
  return TorchTrainer(arch)


class TorchTrainer:
  """A `peers.Trainer`."""

  def __init__(self, arch: architecture_lib.Architecture):
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
      **architecture_lib.to_hf_config(arch, param_dtype="float32")
    )
    self._model = transformers.Qwen2ForCausalLM(config).train()
    self._optimizer = torch.optim.AdamW(
      self._model.parameters(), lr=1e-6, weight_decay=0.01
    )

  def options(self, shape: workloads.Shape) -> list[dict[str, Any]]:
    most = shape.rows * shape.turns
    return [{"batch": size} for size in (2, 4, 8, 16) if size <= most]

  def step(
    self, found: list[train_workload.TrainingSample], batch: int
  ) -> float:
    """One optimizer step; the gradient's norm."""
    for rows in train_workload.row_batches(found, batch):
      self._loss(rows).backward()
    norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
    self._optimizer.step()
    self._optimizer.zero_grad(set_to_none=True)
    return float(norm)

  def _loss(self, rows: train_workload.Rows) -> torch.Tensor:
    tokens_BT = torch.from_numpy(rows.tokens_BT)
    hidden_BTD = self._model.model(
      input_ids=tokens_BT, use_cache=False
    ).last_hidden_state
    row_E, column_E = (
      torch.from_numpy(x) for x in np.nonzero(rows.completion_BT)
    )
    logits_EV = self._model.lm_head(hidden_BTD[row_E, column_E - 1])
    current_E = torch.log_softmax(logits_EV, dim=-1)[
      torch.arange(len(row_E)), tokens_BT[row_E, column_E]
    ]
    behavior_E = torch.from_numpy(rows.behavior_BT)[row_E, column_E]
    advantage_E = torch.from_numpy(rows.advantage_B)[row_E]
    ratio_E = torch.exp(current_E - behavior_E)
    surrogate_E = torch.minimum(
      ratio_E * advantage_E,
      ratio_E.clamp(1 - _CLIP_LOW, 1 + _CLIP_HIGH) * advantage_E,
    )
    return -(torch.from_numpy(rows.weight_B)[row_E] * surrogate_E).sum()
