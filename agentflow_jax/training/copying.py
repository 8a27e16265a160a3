"""The copying drill: spans of random tokens, seen before, come again.

A planner has to copy names it has never seen. Here every token of the
vocabulary appears at random, and only the continuations of copied spans are
trained, so that what is learnt is copying and nothing about any token. Spans,
distances and places vary: a network that only attends a fixed way back fails.

Axes: B row, T token, E loss entry.
"""

import numpy as np

from agentflow_jax.batching import device_batch

_LEAD = (6, 12)  # random tokens before the first span
_SPAN = (3, 9)  # tokens of a copied span
_GAP = (0, 3)  # random tokens between spans


def drill(
  rng: np.random.Generator, rows: int, tokens: int, vocab_size: int
) -> device_batch.TrainBatch:
  """One batch of `rows` x `tokens`, weights adding up to 1.

  Example: 7 3 9 4 1 8 [3 9 4] 5 trains 9 after 3 and 4 after 9, not the first
  3 (nothing says that a span begins).
  """
  tokens_BT = rng.integers(0, vocab_size, (rows, tokens)).astype(np.int32)
  # The fewest random tokens a row can have bound its entries.
  entries = tokens - _LEAD[0]
  parent_BE = np.zeros((rows, entries), np.int32)
  used_BE = np.zeros((rows, entries), bool)
  for b in range(rows):
    copied = _write_spans(rng, tokens_BT[b])
    parent_BE[b, : len(copied)] = np.asarray(copied, np.int32) - 1
    used_BE[b, : len(copied)] = True
  target_BE = np.take_along_axis(tokens_BT, parent_BE + 1, axis=1)
  shape_BT = tokens_BT.shape
  return device_batch.TrainBatch(
    tokens_BT=tokens_BT,
    positions_BT=np.broadcast_to(np.arange(tokens, dtype=np.int32), shape_BT),
    subtree_end_BT=np.full(shape_BT, tokens, np.int32),
    parent_BE=parent_BE,
    target_BE=np.where(used_BE, target_BE, 0),
    behavior_logprob_BE=np.zeros(parent_BE.shape, np.float32),
    advantage_BE=np.zeros(parent_BE.shape, np.float32),
    weight_BE=(used_BE / used_BE.sum()).astype(np.float32),
    sample_BE=np.where(used_BE, 0, -1).astype(np.int32),
  )


def _write_spans(rng: np.random.Generator, row_T: np.ndarray) -> list[int]:
  """Overwrites spans of the row with copies; the indices to be trained."""
  trained: list[int] = []
  place = int(rng.integers(*_LEAD))
  while place < len(row_T) - 1:
    # The source ends before the copy begins: an overlap would be overwritten.
    length = min(int(rng.integers(*_SPAN)), place, len(row_T) - place)
    source = int(rng.integers(0, place - length + 1))
    row_T[place : place + length] = row_T[source : source + length]
    trained += range(place + 1, place + length)
    place += length + int(rng.integers(*_GAP))
  return trained
