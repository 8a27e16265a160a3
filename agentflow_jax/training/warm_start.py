"""Warm start: a random network learns the planner's format, not its strategy.

Flow: random-strategy episodes -> tokenizer -> copying drill -> imitation of
the episodes with made-up names -> a planner that writes readable plans about
whatever its prompt mentions, chosen at random. What to do is left to Flow-GRPO.

The whole stage is a pure function of the config and the seed; it is short, so
a killed one starts again (RUN_DIR/base appears only when it is complete).
"""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from absl import logging

from agentflow_jax.batching import device_batch, packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import training_sample
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import initialisation, transformer
from agentflow_jax.tasks.worldfacts import pages
from agentflow_jax.training import copying, phrases, traces

Report = Callable[[str], None]  # told of each stage's progress, in words

# The pages weigh enough to give nearly every word of a name its own token:
# copying one token is much easier than copying five in the right order.
_PAGE_REPEATS = 20
# Of the vocabulary at most, for phrases and for words of names.
_WHOLE_SHARE = 0.6
_TOKENIZER_TRACES = 1500
_DRILL_TOKENS = (32, 64)  # row length in the first and in the second half
_POOL_TRACES = 64  # packed together, so that rows fill up
_REPORT_EVERY = 20


def train_tokenizer(
  found: Sequence[traces.Trace], vocab_size: int, directory
) -> tokenizer_lib.HfTokenizer:
  """A tokenizer for the pages and for what planners read and write."""
  texts = [
    f"Result: {title}: {text}\nContext: {title}\n"
    for title, text in pages.real_passages()
  ] * _PAGE_REPEATS
  for trace in found[:_TOKENIZER_TRACES]:
    # The last prompt holds all earlier ones.
    texts += [trace.prompts[-1], *trace.plans]
  whole = [*phrases.common_phrases(found), *phrases.name_words()]
  room = int(_WHOLE_SHARE * vocab_size)
  return tokenizer_training.train_tokenizer(
    texts, vocab_size, directory, whole[:room]
  )


def train_planner(
  arch: architecture_lib.Architecture,
  found: Sequence[traces.Trace],
  tokenizer: tokenizer_lib.HfTokenizer,
  config: config_lib.Config,
  mesh: jax.sharding.Mesh,
  report: Report = lambda text: None,
) -> transformer.Params:
  """Parameters that copy and speak the format, on the mesh."""
  init = jax.jit(initialisation.copying_params, static_argnums=0)
  params = init(arch, jax.random.key(config.run.seed))
  stages = (
    _Stage(
      name="copying",
      steps=config.warm_start.copy_steps,
      lr=config.warm_start.copy_lr,
      train_embeddings=True,
      batches=_drills(arch, config, mesh),
    ),
    _Stage(
      name="imitation",
      steps=config.warm_start.imitation_steps,
      lr=config.warm_start.imitation_lr,
      train_embeddings=True,
      batches=_imitation_batches(found, tokenizer, config, mesh),
    ),
  )
  for stage in stages:
    params = _train(arch, params, stage, config, mesh, report)
  return params


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
  name: str
  steps: int
  lr: float
  train_embeddings: bool
  batches: Iterator[list[device_batch.TrainBatch]]


def _train(arch, params, stage: _Stage, config, mesh, report: Report):
  """Imitation by the same learner that trains the policy later."""
  learner = learner_lib.Learner(
    arch,
    dataclasses.replace(
      config.learner,
      lr=stage.lr,
      schedule="cosine",
      warmup_steps=min(20, stage.steps // 4),
      b2=0.98,  # short runs: the second moment has to follow
      max_grad_norm=1.0,
      train_embeddings=stage.train_embeddings,
    ),
    temperature=1.0,
    mesh=mesh,
    total_steps=stage.steps,
  )
  state = learner.init_state(params)
  with _prefetched(stage.batches) as batches:
    for step in range(1, stage.steps + 1):
      state, metrics = learner.update(
        state, next(batches), objective="imitation"
      )
      if step % _REPORT_EVERY == 0 or step == stage.steps:
        loss = metrics["loss"]
        report(f"{stage.name} {step}/{stage.steps}, loss {loss:.3f}")
        logging.info("%s %d/%d: %s", stage.name, step, stage.steps, metrics)
  return state.params


def _drills(arch, config, mesh) -> Iterator[list[device_batch.TrainBatch]]:
  settings = config.warm_start
  rng = np.random.default_rng(config.run.seed)
  devices = device_batch.local_batch_rows(mesh, 1)
  for step in itertools.count():
    tokens = _DRILL_TOKENS[2 * step >= settings.copy_steps]
    rows = max(1, settings.copy_batch_tokens // tokens // devices) * devices
    batch = copying.drill(rng, rows, tokens, arch.vocab_size)
    yield [device_batch.place(batch, mesh)]


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
    traces.name_pieces(tokenizer),
    renamed_share=settings.renamed_share,
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


class _prefetched:
  """Makes the next item in a thread while the device works on this one."""

  def __init__(self, items: Iterator[list[device_batch.TrainBatch]]):
    self._items = items
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)

  def __enter__(self):
    self._next = self._thread.submit(next, self._items)
    return self

  def __next__(self) -> list[device_batch.TrainBatch]:
    item = self._next.result()
    self._next = self._thread.submit(next, self._items)
    return item

  def __exit__(self, *unused) -> None:
    self._thread.shutdown()
