"""Packed trees against per-turn rows: loss and every gradient, many groups.

Random ragged groups (members, turns, lengths and shared prefixes all vary) are
packed into token trees and trained in one program; the other side computes one
plain causal row per turn, all logits, and its own loss formula.
"""

import dataclasses

import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import pytest

from agentflow_jax.batching import device_batch, packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import objectives

_ROWS, _ROW_TOKENS, _ENTRIES = 8, 48, 96  # one shape for all groups
_SAMPLES, _WIDTH, _LONGEST = 12, 40, 6
_GROUPS = 30  # per set of options
_OPTIONS = {
  "tokens": {"kl_coefficient": 0.3, "entropy_coefficient": 0.1},
  "sequences": {"ratio": "sequence", "clip_low": 0.05, "dual_clip": 1.3},
}


def _ragged_group(seed):
  """1-4 members with 1-3 turns; ids from a few, so that prefixes coincide."""
  rng = np.random.default_rng(seed)
  question = rng.integers(0, 4, rng.integers(1, 9))
  made = []
  for member in range(rng.integers(1, 5)):
    memory = question
    for turn in range(rng.integers(1, 4)):
      completion = rng.integers(0, 3, rng.integers(1, _LONGEST + 1))
      made.append(
        examples.TrainingSample(
          prompt_ids=memory.astype(np.int32),
          completion_ids=completion.astype(np.int32),
          behavior_logprobs=np.zeros(len(completion), np.float32),
          advantage=float(rng.normal()),
          weight=float(rng.uniform(0.5, 1.5)) / (10 * len(completion)),
          group=0,
          trajectory=member,
          turn=turn,
        )
      )
      if rng.random() < 0.5:  # the memory keeps the plan, or sums it up
        memory = np.append(memory, completion)
      memory = np.append(memory, rng.integers(0, 4, rng.integers(1, 5)))
  return made, rng


def _unpacked(samples):
  """Fixed-shape arrays: one row per sample."""
  ids = np.zeros((_SAMPLES, _WIDTH), np.int32)
  shape = (_SAMPLES, _LONGEST)
  where, target = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  behavior, real = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
  advantage, weight = np.zeros((2, _SAMPLES, 1), np.float32)
  for n, s in enumerate(samples):
    row = np.concatenate([s.prompt_ids, s.completion_ids])
    count = len(s.completion_ids)
    ids[n, : len(row)] = row
    where[n, :count] = len(s.prompt_ids) - 1 + np.arange(count)
    target[n, :count] = s.completion_ids
    behavior[n, :count] = s.behavior_logprobs
    real[n, :count] = 1
    advantage[n], weight[n] = s.advantage, s.weight
  return ids, where, target, behavior, real, advantage, weight


def _log_softmax(params, ids, where):
  logits = examples.full_logits(examples.ARCH, params, ids)
  logits = jnp.take_along_axis(logits, where[..., None], axis=1)
  return jax.nn.log_softmax(logits / examples.TEMPERATURE)


def _naive_loss(name, params, arrays):
  ids, where, target, behavior, real, advantage, weight = arrays
  scores = _log_softmax(params, ids, where)
  pick = lambda s: jnp.take_along_axis(s, target[..., None], axis=2)[..., 0]
  current = pick(scores)
  if name == "tokens":
    ratio = jnp.exp(current - behavior)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.3) * advantage)
    r = pick(_log_softmax(examples.REFERENCE, ids, where)) - current
    entropy = -(jnp.exp(scores) * scores).sum(-1)
    gain += 0.1 * entropy - 0.3 * jnp.minimum(jnp.exp(r) - 1 - r, 10)
  else:
    mean = (real * (current - behavior)).sum(1) / jnp.maximum(real.sum(1), 1)
    ratio = jnp.exp(mean)[:, None]
    gain = jnp.minimum(
      ratio * advantage, jnp.clip(ratio, 0.95, 1.3) * advantage
    )
    gain = jnp.where(advantage < 0, jnp.maximum(gain, 1.3 * advantage), gain)
  return -(weight * real * gain).sum()


def _packed(samples):
  rows = packing.pack_samples(samples, row_tokens=_ROW_TOKENS).rows
  (batch,) = device_batch.to_micro_batches(
    rows, row_tokens=_ROW_TOKENS, batch_rows=_ROWS, entries=_ENTRIES
  )
  return batch


def _norm(leaf):
  return float(np.linalg.norm(np.asarray(leaf, np.float64)))


@pytest.mark.parametrize("name", _OPTIONS)
def test_loss_and_every_gradient_equal_per_turn_rows(name):
  defaults = {"kl_coefficient": 0.0}
  config = config_lib.LearnerConfig(**(defaults | _OPTIONS[name]))
  scoring = objectives.Scoring(
    temperature=examples.TEMPERATURE, chunk_tokens=_ROWS * 32
  )
  objective = objectives.flow_grpo(examples.ARCH, scoring, config)
  trees = jax.jit(
    jax.value_and_grad(
      lambda params, batch: objective(params, examples.REFERENCE, batch)[0]
    )
  )
  rows = jax.jit(
    jax.value_and_grad(lambda params, a: _naive_loss(name, params, a))
  )
  score = jax.jit(lambda a: _log_softmax(examples.PARAMS, a[0], a[1]))
  shared = 0
  for seed in range(_GROUPS):
    samples, rng = _ragged_group(seed)
    current = np.asarray(score(_unpacked(samples)))
    samples = [
      dataclasses.replace(
        s,
        behavior_logprobs=(
          current[n, np.arange(len(s.completion_ids)), s.completion_ids]
          + 0.3 * rng.normal(size=len(s.completion_ids))
        ).astype(np.float32),
      )
      for n, s in enumerate(samples)
    ]
    shared += packing.pack_samples(samples, row_tokens=_ROW_TOKENS).metrics[
      "computed_tokens"
    ] < sum(len(s.prompt_ids) + len(s.completion_ids) for s in samples)
    loss, gradient = trees(examples.PARAMS, _packed(samples))
    want, want_gradient = rows(examples.PARAMS, _unpacked(samples))
    np.testing.assert_allclose(loss, want, rtol=1e-5, atol=1e-7)
    difference = jax.tree.map(
      lambda a, b: _norm(a - b), gradient, want_gradient
    )
    sizes = jax.tree.map(_norm, want_gradient)
    whole = np.hypot.reduce(jax.tree.leaves(sizes))
    for (path, error), size in zip(
      jax.tree.leaves_with_path(difference),
      jax.tree.leaves(sizes),
      strict=True,
    ):
      # A leaf a hundred times smaller than the gradient is rounding of others.
      assert error <= 1e-5 * max(size, 0.01 * whole), (seed, path)
  assert shared > 0.8 * _GROUPS  # there was something to share


def test_a_turn_split_in_two_gives_the_same_step():
  """The second half's prompt is the first half's prompt and tokens."""
  (whole,) = examples.samples(1, 1, 1, seed=5)
  assert len(whole.completion_ids) > 2
  cut = 2
  halves = [
    dataclasses.replace(
      whole,
      completion_ids=whole.completion_ids[:cut],
      behavior_logprobs=whole.behavior_logprobs[:cut],
    ),
    dataclasses.replace(
      whole,
      prompt_ids=np.concatenate([whole.prompt_ids, whole.completion_ids[:cut]]),
      completion_ids=whole.completion_ids[cut:],
      behavior_logprobs=whole.behavior_logprobs[cut:],
    ),
  ]
  config = config_lib.LearnerConfig(kl_coefficient=0.1)
  scoring = objectives.Scoring(temperature=0.7, chunk_tokens=1024)
  objective = objectives.flow_grpo(examples.ARCH, scoring, config)
  run = jax.jit(
    jax.value_and_grad(
      lambda params, batch: objective(params, examples.REFERENCE, batch)[0]
    )
  )
  packed = [_packed(s) for s in ([whole], halves)]
  used = [(b.subtree_end_BT[0] > np.arange(1, 49)).sum() for b in packed]
  assert used[0] == used[1]  # the same tree
  (loss, gradient), (again, same) = (run(examples.PARAMS, b) for b in packed)
  np.testing.assert_allclose(again, loss, rtol=1e-6)
  for one, other in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(same), strict=True
  ):
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("limit", [0, 2048])
def test_no_derivative_reaches_a_sibling_s_embeddings(limit, monkeypatch):
  """Every node has a token of its own, so embedding rows are nodes."""
  monkeypatch.setattr(objectives.attention, "DENSE_LIMIT_TOKENS", limit)
  # Untied: with tied embeddings the head reads every token's row.
  arch = dataclasses.replace(examples.ARCH, tie_embeddings=False)
  params = examples.tiny_model.tiny_params(arch)
  fresh = iter(range(10, 200))
  take = lambda n: np.array([next(fresh) for _ in range(n)], np.int32)
  question, turns = take(3), [take(3) for _ in range(3)]
  notes = [take(2) for _ in range(3)]
  prompts = [question, question, np.concatenate([question, turns[1], notes[1]])]
  samples = [
    examples.TrainingSample(
      prompt_ids=prompt,
      completion_ids=turn,
      behavior_logprobs=np.full(3, -5, np.float32),
      advantage=1.0,
      weight=float(n == 2),  # only the second member's second turn is trained
      group=0,
      trajectory=min(n, 1),
      turn=n // 2,
    )
    for n, (prompt, turn) in enumerate(zip(prompts, turns, strict=True))
  ]
  batch = _packed(samples)
  assert (batch.subtree_end_BT[0, :3] > 9).all()  # they share one row
  config = config_lib.LearnerConfig(kl_coefficient=0.0)
  scoring = objectives.Scoring(temperature=0.7, chunk_tokens=1024)
  objective = objectives.flow_grpo(arch, scoring, config)
  gradient = jax.jit(jax.grad(lambda p: objective(p, None, batch)[0]))(params)
  slope_V = np.abs(np.asarray(gradient["embedding_VD"])).max(-1)
  seen = np.concatenate([prompts[2], turns[2][:-1]])
  assert (slope_V[seen] > 0).all()
  unseen = np.setdiff1d(np.arange(arch.vocab_size), seen)
  assert set(turns[0]) <= set(unseen)
  assert (slope_V[unseen] == 0).all()
