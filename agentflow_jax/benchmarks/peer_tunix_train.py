"""The tunix peer of the train suite: its GRPO loss over its Qwen2.

A row per turn: prompts of one turn are of one length, completions are padded to
the longest of all, so that few shapes compile. Gradients are summed over
micro-batches, then AdamW takes one step. Tried on one device and with the rows
split over all of them. Needs the [bench] extra.
"""

import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.rl import algo_core
from tunix.rl import common as tunix_common

from agentflow_jax.benchmarks import peer_tunix, train_workload, workloads
from agentflow_jax.models import architecture as architecture_lib

_PAD = 0
_NO_EOS = -1
# What `grpo_loss_fn` reads of its config; no KL, as in all systems.
_ALGORITHM = types.SimpleNamespace(
  beta=0.0,
  epsilon=0.2,
  epsilon_high=0.3,
  epsilon_c=None,
  loss_algo="grpo",
  loss_agg_mode="token-mean",
  kl_loss_mode="low_var_kl",
  kl_clamp_value=None,
  temperature=1.0,
)


def load(arch: architecture_lib.Architecture) -> "TunixTrainer":
  """Random parameters in float32."""
  return TunixTrainer(arch)


class TunixTrainer:
  """A `peers.Trainer`."""

  def __init__(self, arch: architecture_lib.Architecture):
    self._arch = arch
    self._built: dict[int, tuple[Any, Any, Any, Any]] = {}

  def options(self, shape: workloads.Shape) -> list[dict[str, Any]]:
    return [
      {"batch": size, "devices": devices}
      for size in (4, 8, 16)
      for devices in sorted({1, len(jax.devices())})
      if size % devices == 0 and shape.rows % size == 0
    ]

  def step(
    self,
    found: list[train_workload.TrainingSample],
    batch: int,
    devices: int,
  ) -> float:
    """One optimizer step; the gradient's norm."""
    with peer_tunix.mesh(devices):
      model, optimizer, accumulate, apply = self._parts(devices)
      total = None
      for rows in _batches(found, batch):
        if devices > 1:
          mesh = jax.sharding.get_mesh()
          split = jax.NamedSharding(mesh, jax.P("fsdp"))
          rows = jax.device_put(rows, split)
        total = accumulate(model, rows, total)
        jax.block_until_ready(total)  # collectives of a CPU: one at a time
      return float(apply(model, optimizer, total))

  def _parts(self, devices: int):
    if devices not in self._built:
      model = peer_tunix.new_model(self._arch, is_sampling=False)
      optimizer = nnx.Optimizer(
        model, optax.adamw(1e-6, weight_decay=0.01), wrt=nnx.Param
      )
      self._built[devices] = (
        model,
        optimizer,
        nnx.jit(_accumulate),
        nnx.jit(_apply),
      )
    return self._built[devices]


def _accumulate(model, rows, total):
  def loss(model):
    return algo_core.grpo_loss_fn(model, rows, _ALGORITHM, _PAD, _NO_EOS)[0]

  gradients = nnx.grad(loss)(model)
  if total is None:
    return gradients
  return jax.tree.map(jnp.add, total, gradients)


def _apply(model, optimizer, gradients):
  norm = optax.global_norm(gradients)
  factor = jnp.minimum(1.0, 1.0 / norm)
  optimizer.update(model, jax.tree.map(lambda g: g * factor, gradients))
  return norm


def _batches(
  found: Sequence[train_workload.TrainingSample], size: int
) -> list[tunix_common.TrainExample]:
  longest = max(len(sample.completion_ids) for sample in found)
  by_turn: dict[int, list[train_workload.TrainingSample]] = {}
  for sample in found:
    by_turn.setdefault(sample.turn, []).append(sample)
  return [
    _example(turn[start : start + size], longest)
    for turn in by_turn.values()
    for start in range(0, len(turn), size)
  ]


def _example(
  chosen: Sequence[train_workload.TrainingSample], longest: int
) -> tunix_common.TrainExample:
  prompts = np.stack([sample.prompt_ids for sample in chosen])
  ids = np.full((len(chosen), longest), _PAD, np.int32)
  for row, sample in enumerate(chosen):
    ids[row, : len(sample.completion_ids)] = sample.completion_ids
  return tunix_common.TrainExample(
    prompt_ids=jnp.asarray(prompts),
    prompt_mask=jnp.ones(prompts.shape, bool),
    completion_ids=jnp.asarray(ids),
    completion_mask=jnp.asarray(ids != _PAD),
    advantages=jnp.asarray([s.advantage for s in chosen], jnp.float32),
    ref_per_token_logps=None,
    # Its own: under those of a uniform distribution, which random weights of
    # tunix are far from, every token would be clipped.
    old_per_token_logps=None,
  )
