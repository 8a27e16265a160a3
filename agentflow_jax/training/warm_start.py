"""Warm start: a random network learns the planner's format, not its strategy.

Flow: random-strategy episodes -> tokenizer -> copying drill -> imitation of
the episodes with made-up names -> a planner that writes readable plans about
whatever its prompt mentions, chosen at random. What to do is left to Flow-GRPO.

The whole stage is a pure function of the config and the seed; it is short, so
a killed one starts again (RUN_DIR/base appears only when it is complete).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from agentflow_jax.batching import device_batch, packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import training_sample
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import initialisation, transformer
from agentflow_jax.training import copying, imitation, lessons, traces

# Row length of the drill in its first half, and bounds of it in the second:
# what is copied stands far back in long prompts.
_DRILL_TOKENS = 32
_LONGER_DRILL_TOKENS = (64, 256)
_POOL_TRACES = 64  # packed together, so that rows fill up


def train_planner(
  arch: architecture_lib.Architecture,
  found: Sequence[traces.Trace],
  tokenizer: tokenizer_lib.HfTokenizer,
  config: config_lib.Config,
  mesh: jax.sharding.Mesh,
  report: imitation.Report = lambda text: None,
) -> transformer.Params:
  """Parameters that copy and speak the format, on the mesh."""
  init = jax.jit(initialisation.copying_params, static_argnums=0)
  params = init(arch, jax.random.key(config.run.seed))
  settings = config.warm_start
  copying_stage = imitation.Stage(
    name="copying",
    steps=settings.copy_steps,
    batches=_drills(arch, config, mesh),
  )
  params = _train(
    arch, params, copying_stage, settings.copy_lr, config, mesh, report
  )
  imitation_stage = imitation.Stage(
    name="imitation",
    steps=settings.imitation_steps,
    batches=_imitation_batches(found, tokenizer, config, mesh),
  )
  return _train(
    arch, params, imitation_stage, settings.imitation_lr, config, mesh, report
  )


def _train(arch, params, stage: imitation.Stage, lr, config, mesh, report):
  """Imitation by the same learner that trains the policy later."""
  learner = learner_lib.Learner(
    arch,
    dataclasses.replace(
      config.learner,
      lr=lr,
      schedule="cosine",
      warmup_steps=min(20, stage.steps // 4),
      b2=0.98,  # short runs: the second moment has to follow
      max_grad_norm=1.0,
      train_embeddings=True,
    ),
    temperature=1.0,
    mesh=mesh,
    total_steps=stage.steps,
  )
  state = imitation.run(learner, learner.init_state(params), stage, report)
  return state.params


def _drills(arch, config, mesh) -> Iterator[list[device_batch.TrainBatch]]:
  settings = config.warm_start
  rng = np.random.default_rng(config.run.seed)
  devices = device_batch.local_batch_rows(mesh, 1)
  for step in itertools.count():
    second = 2 * step >= settings.copy_steps
    tokens = _longer_drill(config) if second else _DRILL_TOKENS
    rows = max(1, settings.copy_batch_tokens // tokens // devices) * devices
    batch = copying.drill(rng, rows, tokens, arch.vocab_size)
    yield [device_batch.place(batch, mesh)]


def _longer_drill(config: config_lib.Config) -> int:
  """A quarter of the longest prompt, as a power of two within bounds."""
  quarter = max(1, config.sampler.max_prompt_tokens // 4)
  low, high = _LONGER_DRILL_TOKENS
  return min(high, max(low, 1 << (quarter.bit_length() - 1)))


def _imitation_batches(
  found: Sequence[traces.Trace],
  tokenizer: tokenizer_lib.HfTokenizer,
  config: config_lib.Config,
  mesh: jax.sharding.Mesh,
) -> Iterator[list[device_batch.TrainBatch]]:
  """Optimizer batches of `imitation_rows` packed rows."""
  settings, learner = config.warm_start, config.learner
  stream = traces.sample_stream(
    found,
    tokenizer,
    lessons.variation(config),
    seed=config.run.seed,
  )
  rows: list[packing.PackedRow] = []
  entries = 0  # never shrinks, so that there are few shapes to compile
  batch_rows = device_batch.local_batch_rows(mesh, learner.micro_batch_rows)
  while True:
    while len(rows) < settings.imitation_rows:
      rows += _pack(stream, learner)
    chosen, rows = (
      rows[: settings.imitation_rows],
      rows[settings.imitation_rows :],
    )
    entries = max(entries, device_batch.entry_bucket(chosen))
    yield [
      device_batch.place(batch, mesh)
      for batch in device_batch.to_micro_batches(
        _normalised(chosen),
        row_tokens=learner.row_tokens,
        batch_rows=batch_rows,
        entries=entries,
      )
    ]


def _pack(
  stream: Iterator[list[training_sample.TrainingSample]],
  learner: config_lib.LearnerConfig,
) -> list[packing.PackedRow]:
  samples = [
    sample
    for one in itertools.islice(stream, _POOL_TRACES)
    for sample in one
    if len(sample.prompt_ids) + len(sample.completion_ids) <= learner.row_tokens
  ]
  packed = packing.pack_samples(samples, row_tokens=learner.row_tokens)
  # Rows come out longest first; a batch should have long and short ones.
  order = np.random.default_rng(len(samples)).permutation(len(packed.rows))
  return [packed.rows[i] for i in order]


def _normalised(
  rows: Sequence[packing.PackedRow],
) -> list[packing.PackedRow]:
  """Weights that add up to 1: the loss is the mean over trained tokens."""
  total = sum(float(row.weight_E.sum()) for row in rows)
  return [
    dataclasses.replace(row, weight_E=row.weight_E / np.float32(total))
    for row in rows
  ]
