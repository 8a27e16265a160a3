"""Ragged groups for the learner tests, and the slow way to score them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import training_sample as training_sample_lib
from agentflow_jax.models import attention, sharding, transformer
from agentflow_jax.testing import tiny_model

TrainingSample = training_sample_lib.TrainingSample
TEMPERATURE = 0.7
ARCH = tiny_model.tiny_architecture()
PARAMS = tiny_model.tiny_params(ARCH, seed=0)
REFERENCE = tiny_model.tiny_params(ARCH, seed=1)


def mesh(data=1, fsdp=1, tensor=1):
  devices = jax.devices()[: data * fsdp * tensor]
  return sharding.make_mesh(data, fsdp, tensor, devices=devices)


def step_config(**fields):
  """A learner whose first moment after a step is its gradient."""
  # b1 = 0 and no clipping: the first moment is the gradient itself.
  defaults = {
    "lr": 1e-2,
    "b1": 0.0,
    "max_grad_norm": 1e9,
    "kl_coefficient": 0.1,
    "row_tokens": 64,
    "micro_batch_rows": 4,
  }
  return config_lib.LearnerConfig(**(defaults | fields))


def samples(
  groups=3, members=3, turns=2, *, seed=0, noise=0.3, arch=ARCH, params=PARAMS
):
  """Groups whose members share a question and whose turns share a memory.

  Behavior logprobs are the current ones plus noise, so ratios fall on both
  sides of the clip bounds; advantages and weights differ per sample.
  """
  rng = np.random.default_rng(seed)
  made = []
  for group in range(groups):
    question = rng.integers(0, arch.vocab_size, rng.integers(3, 9))
    for member in range(members):
      memory = question
      for turn in range(turns):
        length = int(rng.integers(1, 6))
        completion = rng.integers(0, arch.vocab_size, length)
        if member == 1 and turn == 0:
          completion = made[-turns].completion_ids  # two members agree
        made.append(
          TrainingSample(
            prompt_ids=np.append(memory, turn).astype(np.int32),
            completion_ids=completion.astype(np.int32),
            behavior_logprobs=np.zeros(len(completion), np.float32),
            advantage=float(rng.normal()),
            weight=float(rng.uniform(0.5, 1.5)) / (20 * len(completion)),
            group=group,
            trajectory=member,
            turn=turn,
          )
        )
        memory = np.append(memory, rng.integers(0, arch.vocab_size, 4))
  current = naive_logprobs(made, arch=arch, params=params)
  return [
    dataclasses.replace(
      s,
      behavior_logprobs=(c + noise * rng.normal(size=len(c))).astype(
        np.float32
      ),
    )
    for s, c in zip(made, current, strict=True)
  ]


def naive_logprobs(
  sample_list, *, arch=ARCH, params=PARAMS, temperature=TEMPERATURE
):
  """Unpacked: every sample its own causal row, full logits, float64 softmax."""
  ids = padded(sample_list)
  run = jax.jit(full_logits, static_argnums=0)
  logits = np.asarray(run(arch, params, ids), np.float64) / temperature
  logits -= logits.max(-1, keepdims=True)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  out = []
  for scores, s in zip(logprobs, sample_list, strict=True):
    start = len(s.prompt_ids) - 1
    where = np.arange(start, start + len(s.completion_ids))
    out.append(scores[where, s.completion_ids])
  return out


def padded(sample_list):
  """int32 [N, T], prompt + completion of each sample, zeros behind."""
  rows = [np.concatenate([s.prompt_ids, s.completion_ids]) for s in sample_list]
  ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
  for out, row in zip(ids, rows, strict=True):
    out[: len(row)] = row
  return ids


def full_logits(arch, params, ids):
  """[N, T, V] of plain causal rows."""
  rows, width = ids.shape
  causal = jnp.full((rows, width), width, jnp.int32)  # one tree per row
  hidden, _ = transformer.forward(
    arch,
    params,
    ids,
    jnp.broadcast_to(jnp.arange(width), ids.shape),
    attention.tree_attend(causal),
  )
  return transformer.project_logits(arch, params, hidden)


def batches(sample_list, config, on_mesh):
  return device_batch.make_micro_batches(sample_list, config, on_mesh).batches


def per_sample(batch_list, sample_list, values):
  """Entry arrays [B, E] of each micro-batch -> one array per sample.

  Samples are told apart by their weight, which `samples` draws at random.
  """
  found = {}
  for batch, values_BE in zip(batch_list, values, strict=True):
    for weight_E, sample_E, values_E in zip(
      *map(np.asarray, (batch.weight_BE, batch.sample_BE, values_BE)),
      strict=True,
    ):
      for number in range(sample_E.max() + 1):
        mine = sample_E == number
        found[weight_E[mine][0]] = values_E[mine]
  return [found[np.float32(s.weight)] for s in sample_list]
