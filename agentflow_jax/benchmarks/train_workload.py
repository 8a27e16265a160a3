"""What the train benchmark learns from: the rollout workload, scored.

Every call of a `workloads.Shape` with the tokens drawn for it, as the learner
gets them: behavior logprobs, an advantage per member and the weights of the
`flow` aggregation. Tokens and advantages depend on the seed, lengths on the
shape alone, so every system does equal work in every step.

No jax: peers in processes of their own import this too.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from agentflow_jax.benchmarks import workloads
from agentflow_jax.core import training_sample

TrainingSample = training_sample.TrainingSample


def trajectories(tasks: int, turns: int) -> workloads.Shape:
  """`workloads.agentflow` with another number of turns."""
  return dataclasses.replace(
    workloads.agentflow(tasks), name=f"agentflow, {turns} turns", turns=turns
  )


def samples(
  shape: workloads.Shape, vocab_size: int, seed: int
) -> list[TrainingSample]:
  """One sample per turn of every member; the weights add up to 1."""
  rng = np.random.default_rng(seed)
  advantages = rng.standard_normal(shape.rows)
  found = []
  for turn, calls in enumerate(workloads.calls(shape, vocab_size, seed)):
    for call in calls:
      length = call.completion_tokens
      found.append(
        TrainingSample(
          prompt_ids=call.prompt,
          completion_ids=rng.integers(1, vocab_size, length, dtype=np.int32),
          # About those of random weights, so that ratios are near 1.
          behavior_logprobs=np.full(length, -math.log(vocab_size), np.float32),
          advantage=float(advantages[call.row]),
          weight=1.0 / (shape.rows * shape.turns * length),
          group=call.row // shape.members,
          trajectory=call.row % shape.members,
          turn=turn,
        )
      )
  return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
  """Turns as rows of their own, padded on the right to the longest.

  Example: prompt (5 6), completion (7 8) in a batch of width 5: tokens
  (5 6 7 8 0), completion (0 0 1 1 0).
  """

  tokens_BT: np.ndarray  # int64
  completion_BT: np.ndarray  # bool, the tokens that are trained
  weight_B: np.ndarray  # float32, of each trained token
  advantage_B: np.ndarray  # float32
  behavior_BT: np.ndarray  # float32 logprobs, 0 elsewhere


def row_batches(found: Sequence[TrainingSample], size: int) -> list[Rows]:
  """Batches of `size` rows of like length."""
  ordered = sorted(found, key=_length)
  return [
    _rows(ordered[start : start + size])
    for start in range(0, len(ordered), size)
  ]


def _rows(chosen: Sequence[TrainingSample]) -> Rows:
  shape = (len(chosen), max(map(_length, chosen)))
  tokens = np.zeros(shape, np.int64)
  completion = np.zeros(shape, bool)
  behavior = np.zeros(shape, np.float32)
  for row, sample in enumerate(chosen):
    start, stop = len(sample.prompt_ids), _length(sample)
    tokens[row, :start] = sample.prompt_ids
    tokens[row, start:stop] = sample.completion_ids
    completion[row, start:stop] = True
    behavior[row, start:stop] = sample.behavior_logprobs
  return Rows(
    tokens_BT=tokens,
    completion_BT=completion,
    weight_B=np.array([s.weight for s in chosen], np.float32),
    advantage_B=np.array([s.advantage for s in chosen], np.float32),
    behavior_BT=behavior,
  )


def _length(sample: TrainingSample) -> int:
  return len(sample.prompt_ids) + len(sample.completion_ids)
