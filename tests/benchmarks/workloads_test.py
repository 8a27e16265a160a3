"""Equal work for every system: shapes, sharing, and what a FLOP count says."""

import dataclasses

import numpy as np
import pytest

from agentflow_jax.benchmarks import flops, workloads
from agentflow_jax.models import presets


def test_the_agentflow_shape_is_that_of_our_rollouts():
  shape = workloads.agentflow()
  turns = workloads.calls(shape, 4096, seed=3)
  assert [len(turn) for turn in turns] == [64] * 3
  assert [len(turn[0].prompt) for turn in turns] == [768, 896, 1024]
  first, second, _ = turns
  for before, after in zip(first, second, strict=True):
    np.testing.assert_array_equal(after.prompt[:768], before.prompt)
  a, b, other = first[0].prompt, first[7].prompt, first[8].prompt
  np.testing.assert_array_equal(a[:640], b[:640])  # one task
  np.testing.assert_array_equal(a[:512], other[:512])  # the system prompt
  assert (a[512:640] != other[512:640]).any()
  assert (a[640:] != b[640:]).any()
  counts = [call.completion_tokens for turn in turns for call in turn]
  assert min(counts) >= 32 and max(counts) <= 96 and len(set(counts)) > 30


def test_seeds_change_tokens_and_never_lengths():
  shape = workloads.agentflow(tasks=1)
  one, two = (workloads.calls(shape, 50, seed) for seed in (1, 2))
  for a, b in zip(sum(one, []), sum(two, []), strict=True):
    assert a.completion_tokens == b.completion_tokens
    assert len(a.prompt) == len(b.prompt) and (a.prompt != b.prompt).any()
    assert a.prompt.min() >= 1 and a.prompt.max() < 50


def test_static_batches_hold_every_call_once_by_length():
  (turn,) = workloads.calls(workloads.plain(), 50, seed=0)
  turn = [
    dataclasses.replace(call, completion_tokens=90 - call.row) for call in turn
  ]
  found = workloads.batches(turn, 5)
  assert [len(batch) for batch in found] == [5, 5, 5, 1]
  assert [call.row for batch in found for call in batch] == [*range(16)][::-1]


def _unique_flops_by_hand(shape, arch):
  """Walks every distinct prefix of a workload's token sequences."""
  lengths = workloads.completion_lengths(shape)
  seen, drawn = set(), 0
  for turn, calls in enumerate(workloads.calls(shape, 4096, seed=0)):
    for call in calls:
      for end in range(1, len(call.prompt) + 1):
        seen.add((end, call.prompt[:end].tobytes()))
      count = int(lengths[turn, call.row])
      drawn += count
      start = len(call.prompt)
      seen |= {(start + n + 1, turn, call.row) for n in range(count - 1)}
  d, h = arch.hidden_size, arch.head_dim
  layer = d * h * (2 * arch.num_heads + 2 * arch.num_kv_heads)
  layer += 3 * d * arch.intermediate_size
  attended = sum(key[0] for key in seen) * 2 * arch.num_heads * h
  layers = arch.num_layers * (len(seen) * layer + attended)
  return 2 * (layers + drawn * arch.vocab_size * d)


@pytest.mark.parametrize("members", [1, 2])
def test_flops_count_every_unique_token_once(members):
  shape = workloads.Shape(
    name="small",
    tasks=2,
    members=members,
    turns=2,
    system_tokens=5,
    task_tokens=3,
    memory_tokens=4,
    completion_tokens=(2, 6),
  )
  arch = presets.ARCHITECTURES["bench_tiny"]
  expected = _unique_flops_by_hand(shape, arch)
  assert flops.unique(shape).flops(arch) == expected
