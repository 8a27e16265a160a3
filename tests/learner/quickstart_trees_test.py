"""Trees against per-turn rows on what the quickstart's planner really sees.

Random-strategy episodes of the quickstart config, three members for each of two
questions, are tokenised and trained both ways.
"""

import asyncio
import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import optax
import pytest

from agentflow_jax.assembly import start
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.batching import packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import objectives
from agentflow_jax.training import worldfacts_lesson

_ROOT = pathlib.Path(__file__).parents[2]
_MEMBERS = 3
_VOCABULARY = 512


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
  folder = tmp_path_factory.mktemp("quickstart")
  config = runpy.run_path(str(_ROOT / "configs/quickstart.py"))["get_config"]()
  config.warm_start.traces = 2 * _MEMBERS
  world = world_lib.open_world(config, folder)
  questions = [world.train_tasks[n] for n in (0, 1)]
  world = dataclasses.replace(world, train_tasks=questions * _MEMBERS)
  found = asyncio.run(start.collect_traces(world))
  tokenizer = worldfacts_lesson.train_tokenizer(
    found, _VOCABULARY, folder / "words"
  )
  rng = np.random.default_rng(0)
  return [
    examples.TrainingSample(
      prompt_ids=np.array(tokenizer.encode(prompt), np.int32),
      completion_ids=np.array(
        [*tokenizer.encode(plan), tokenizer.eos_ids[0]], np.int32
      ),
      behavior_logprobs=np.zeros(len(tokenizer.encode(plan)) + 1, np.float32),
      advantage=float(rng.normal()),
      weight=float(rng.uniform(0.5, 1.5)) / 1000,
      group=0,
      trajectory=member,
      turn=turn,
    )
    for member, trace in enumerate(found)
    for turn, (prompt, plan) in enumerate(
      zip(trace.prompts, trace.plans, strict=True)
    )
  ]


@pytest.mark.slow
def test_loss_and_gradient_are_those_of_per_turn_rows(samples):
  arch = dataclasses.replace(
    examples.ARCH, vocab_size=_VOCABULARY, max_positions=4096
  )
  params = examples.tiny_model.tiny_params(arch)
  ids = examples.padded(samples)
  longest = max(len(s.completion_ids) for s in samples)
  where, target = np.zeros((2, len(samples), longest), np.int32)
  real = np.zeros(where.shape, np.float32)
  for n, s in enumerate(samples):
    count = len(s.completion_ids)
    where[n, :count] = len(s.prompt_ids) - 1 + np.arange(count)
    target[n, :count] = s.completion_ids
    real[n, :count] = 1
  noise = 0.3 * np.random.default_rng(1).normal(size=where.shape)
  advantage = np.array([[s.advantage] for s in samples], np.float32)
  weight = np.array([[s.weight] for s in samples], np.float32)

  def current(params):
    logits = examples.full_logits(arch, params, ids)
    logits = jnp.take_along_axis(logits, where[..., None], axis=1)
    scores = jax.nn.log_softmax(logits / examples.TEMPERATURE)
    return jnp.take_along_axis(scores, target[..., None], axis=2)[..., 0]

  behavior = np.asarray(jax.jit(current)(params) + noise, np.float32)

  def naive(params):
    ratio = jnp.exp(current(params) - behavior)
    clipped = jnp.clip(ratio, 0.8, 1.3)
    gain = jnp.minimum(ratio * advantage, clipped * advantage)
    return -(weight * real * gain).sum()

  want, want_gradient = jax.jit(jax.value_and_grad(naive))(params)
  samples = [
    dataclasses.replace(s, behavior_logprobs=b[: len(s.completion_ids)])
    for s, b in zip(samples, behavior, strict=True)
  ]
  config = config_lib.LearnerConfig(
    kl_coefficient=0.0, row_tokens=2048, micro_batch_rows=1
  )
  objective = objectives.flow_grpo(
    arch,
    objectives.Scoring(temperature=examples.TEMPERATURE, chunk_tokens=512),
    config,
  )
  run = jax.jit(
    jax.value_and_grad(lambda params, batch: objective(params, None, batch)[0])
  )
  results = [
    run(params, batch)
    for batch in examples.batches(samples, config, examples.mesh())
  ]
  loss, gradient = jax.tree.map(lambda *parts: sum(parts), *results)
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  difference = jax.tree.map(jnp.subtract, gradient, want_gradient)
  norm = optax.tree_utils.tree_norm
  assert norm(difference) <= 1e-5 * norm(want_gradient)


def test_every_distinct_token_is_computed_once(samples):
  metrics = packing.pack_samples(samples, row_tokens=8192).metrics
  assert metrics["computed_over_distinct"] <= 1.05
  assert metrics["computed_tokens"] < 0.6 * metrics["sample_tokens"]
