"""Packed rows -> TrainBatch: arrays of a few fixed shapes, on the mesh.

Flow: rows -> micro-batches of B rows padded to T tokens and E entries ->
sharded over the data axes of the mesh. Every micro-batch of an optimizer batch
has the same shape, and E comes from a short ladder of buckets, so the learner
compiles once per bucket. Padding trains nothing: its weight is 0.

Axes: B row, T token, E loss entry.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from agentflow_jax.batching import packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import training_sample as training_sample_lib

# Mesh axes that hold different rows; "tensor" sees the same ones.
DATA_AXES = ("data", "fsdp")
_MIN_ENTRIES = 64
_HALF_STEPS_FROM = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainBatch:
  """One micro-batch; numpy on the host, jax arrays after `place`.

  Row padding sees only itself. Entry padding has `sample` -1, weight 0.
  `sample` numbers the samples of one row: the same number in two rows means
  two samples.

  Example: one row (5 6 7 8), T=5, E=3, completion (7 8): tokens
  (5 6 7 8 0), subtree_end (4 4 4 4 5), parent (1 2 0), target (7 8 0),
  sample (0 0 -1).
  """

  tokens_BT: Any  # int32
  positions_BT: Any  # int32
  subtree_end_BT: Any  # int32
  parent_BE: Any  # int32, row index whose hidden state predicts target
  target_BE: Any  # int32
  behavior_logprob_BE: Any  # float32
  advantage_BE: Any  # float32
  weight_BE: Any  # float32
  sample_BE: Any  # int32, -1 for padding
  # float32, of the learner when it had just sampled (`Learner.recompute`);
  # None: the behavior logprobs stand for it.
  recomputed_logprob_BE: Any = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatches:
  """The placed micro-batches of one optimizer batch and what they cost."""

  batches: tuple[TrainBatch, ...]
  metrics: dict[str, float]


def make_micro_batches(
  samples: Sequence[training_sample_lib.TrainingSample],
  learner: config_lib.LearnerConfig,
  mesh: jax.sharding.Mesh,
  *,
  max_over_hosts: Callable[[np.ndarray], np.ndarray] | None = None,
) -> MicroBatches:
  """Packs, pads and places the samples of one optimizer batch.

  Args:
    samples: this process's samples; may be empty.
    learner: packing, row_tokens and micro_batch_rows (rows per device).
    mesh: has the axes of `DATA_AXES`.
    max_over_hosts: elementwise maximum of an int64 array over all processes,
      so that every host runs equally many micro-batches of one shape.

  Raises:
    ValueError: a sample is longer than a row.
  """
  packed = packing.pack_samples(
    samples, row_tokens=learner.row_tokens, strategy=learner.packing
  )
  batch_rows = local_batch_rows(mesh, learner.micro_batch_rows)
  sizes = np.array(
    [-(-len(packed.rows) // batch_rows), entry_bucket(packed.rows)], np.int64
  )
  if max_over_hosts is not None:
    sizes = max_over_hosts(sizes)
  batches = to_micro_batches(
    packed.rows,
    row_tokens=learner.row_tokens,
    batch_rows=batch_rows,
    batches=int(sizes[0]),
    entries=int(sizes[1]),
  )
  metrics = dict(packed.metrics)
  metrics["micro_batches"] = float(len(batches))
  metrics["padding_rows"] = float(len(batches) * batch_rows - len(packed.rows))
  return MicroBatches(
    batches=tuple(place(batch, mesh) for batch in batches), metrics=metrics
  )


def local_batch_rows(mesh: jax.sharding.Mesh, micro_batch_rows: int) -> int:
  """Rows of a micro-batch this process supplies."""
  rows = micro_batch_rows
  for axis in DATA_AXES:
    rows *= mesh.shape[axis]
  # A host's devices may be tensor shards of the same rows.
  shards = batch_sharding(mesh).addressable_devices_indices_map((rows,))
  return micro_batch_rows * len({str(index) for index in shards.values()})


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Rows over the data axes, everything else replicated."""
  return jax.sharding.NamedSharding(mesh, jax.P(DATA_AXES))


def entry_bucket(rows: Sequence[packing.PackedRow]) -> int:
  """The smallest of 64, 128, 256, 384, 512, 768, ... that holds any row's."""
  most = max((len(row.parent_E) for row in rows), default=0)
  bucket = _MIN_ENTRIES
  while bucket < most:
    if bucket < _HALF_STEPS_FROM:  # compiling costs more than padding
      bucket *= 2
    else:  # half steps: at most a third of a bucket is padding
      is_power = bucket & (bucket - 1) == 0
      bucket = bucket * 3 // 2 if is_power else bucket * 4 // 3
  return bucket


def to_micro_batches(
  rows: Sequence[packing.PackedRow],
  *,
  row_tokens: int,
  batch_rows: int,
  batches: int | None = None,
  entries: int | None = None,
) -> list[TrainBatch]:
  """Stacks rows into numpy micro-batches of one shape.

  Args:
    rows: packed rows of at most `row_tokens` tokens.
    row_tokens: T.
    batch_rows: B; the last micro-batch is filled with empty rows.
    batches: number of micro-batches, by default as few as hold the rows.
    entries: E, by default `entry_bucket(rows)`.

  Raises:
    ValueError: the rows do not fit into `batches` or `entries`.
  """
  if batches is None:
    batches = -(-len(rows) // batch_rows)
  if entries is None:
    entries = entry_bucket(rows)
  most = max((len(row.parent_E) for row in rows), default=0)
  if len(rows) > batches * batch_rows or most > entries:
    raise ValueError(
      f"{len(rows)} rows with up to {most} entries do not fit into {batches} "
      f"micro-batches of {batch_rows} rows with {entries} entries"
    )
  return [
    _stack(
      rows[i * batch_rows : (i + 1) * batch_rows],
      batch_rows,
      row_tokens,
      entries,
    )
    for i in range(batches)
  ]


def place(batch: TrainBatch, mesh: jax.sharding.Mesh) -> TrainBatch:
  """Puts a host batch on the mesh; each process passes its own rows."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda array: jax.make_array_from_process_local_data(sharding, array), batch
  )


def _stack(
  rows: Sequence[packing.PackedRow],
  batch_rows: int,
  row_tokens: int,
  entries: int,
) -> TrainBatch:
  def padded(name: str, columns: int, dtype, fill):
    out = np.empty((batch_rows, columns), dtype)
    out[:] = fill
    for b, row in enumerate(rows):
      values = getattr(row, name)
      out[b, : len(values)] = values
    return out

  own_end = np.arange(1, row_tokens + 1)
  return TrainBatch(
    tokens_BT=padded("tokens_T", row_tokens, np.int32, 0),
    positions_BT=padded("positions_T", row_tokens, np.int32, 0),
    subtree_end_BT=padded("subtree_end_T", row_tokens, np.int32, own_end),
    parent_BE=padded("parent_E", entries, np.int32, 0),
    target_BE=padded("target_E", entries, np.int32, 0),
    behavior_logprob_BE=padded("behavior_logprob_E", entries, np.float32, 0),
    advantage_BE=padded("advantage_E", entries, np.float32, 0),
    weight_BE=padded("weight_E", entries, np.float32, 0),
    sample_BE=padded("sample_E", entries, np.int32, -1),
  )
