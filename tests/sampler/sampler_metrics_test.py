"""Counting of distinct prefill tokens, and the shares made of the counts."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_jax.sampler import metrics


def _unique(prompts) -> int:
  """Distinct non-empty prefixes, which is what a token trie counts."""
  return len({tuple(p[: i + 1]) for p in prompts for i in range(len(p))})


def test_distinct_prompts_counts_what_no_earlier_prompt_shared():
  distinct = metrics.DistinctPrompts()
  prompt = np.arange(200, dtype=np.int32)
  other = np.concatenate([prompt[:150], prompt[:20]])
  assert distinct.add(prompt) == 200
  assert distinct.add(prompt) == 0
  assert distinct.add(prompt[:77]) == 0
  assert distinct.add(other) == 20
  assert distinct.add(np.empty(0, np.int32)) == 0
  distinct.clear()
  assert distinct.add(other) == 170


@settings(max_examples=200, deadline=None)
@given(
  st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 200), st.integers(0, 200)),
    min_size=1,
    max_size=12,
  )
)
def test_distinct_prompts_agrees_with_a_set_of_prefixes(shapes):
  """Prompts that leave a common one at some length and go on their own way."""
  common = np.random.default_rng(0).integers(0, 2, 200)
  prompts = []
  for seed, shared, own in shapes:
    tail = np.random.default_rng(seed).integers(0, 2, own)
    prompts.append(np.concatenate([common[:shared], tail]).astype(np.int32))
  distinct = metrics.DistinctPrompts()
  added = [distinct.add(prompt) for prompt in prompts]
  for count in range(1, len(prompts) + 1):
    assert sum(added[:count]) == _unique([p.tolist() for p in prompts[:count]])


def test_distinct_prompts_is_emptied_when_it_grows_too_big(monkeypatch):
  monkeypatch.setattr(metrics, "_MAX_KEPT_TOKENS", 100)
  distinct = metrics.DistinctPrompts()
  prompt = np.arange(101, dtype=np.int32)
  assert distinct.add(prompt) == 101
  assert distinct.add(prompt) == 101


def test_summary_of_hand_made_counts():
  counters = metrics.Counters(
    requests=2,
    prompt_tokens=40,
    kept_tokens=10,
    copied_tokens=20,
    computed_tokens=10,
    chunk_tokens=16,
    unique_tokens=8,
    completion_tokens=12,
    context_tokens=50,
    shared_tokens=20,
    row_steps=48,
    extend_s=0.5,
    decode_s=2.0,
    queue_ages_s=collections.deque([0.0, 3.0]),
  )
  summary = counters.summary()
  assert summary["prefix_hit_rate"] == 0.75
  assert summary["prefill_computed_per_unique"] == 1.25
  assert summary["prefill_padding"] == 6 / 16
  assert summary["occupancy"] == 0.25
  assert summary["shared_context"] == 0.4
  assert summary["prefill_tokens_per_s"] == 20.0
  assert summary["decode_tokens_per_s"] == 6.0
  assert summary["queue_age_mean_s"] == 1.5
  assert summary["queue_age_p50_s"] == 1.5
  assert summary["queue_age_p99_s"] == pytest.approx(2.97)
  assert summary["queue_age_max_s"] == 3.0
  empty = metrics.Counters().summary()
  assert empty["occupancy"] == empty["queue_age_p99_s"] == 0.0
