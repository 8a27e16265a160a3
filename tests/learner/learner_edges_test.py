"""Steps that must not happen, steps with nearly nothing in them, and memory."""

import dataclasses

import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import pytest

from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import logprobs, losses

_SAMPLES = examples.samples()


def _config(**fields):
  defaults = {
    "lr": 1e-2,
    "kl_coefficient": 0.0,
    "row_tokens": 64,
    "micro_batch_rows": 4,
  }
  return config_lib.LearnerConfig(**(defaults | fields))


def _learner(config, arch=examples.ARCH):
  return learner_lib.Learner(
    arch,
    config,
    temperature=examples.TEMPERATURE,
    mesh=examples.mesh(),
    total_steps=100,
  )


def _bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _poison_logits(monkeypatch):
  real = logprobs.transformer.project_logits

  def poisoned(arch, params, hidden):
    logits = real(arch, params, hidden)
    return logits.at[0, 0, 0].set(jnp.nan)

  monkeypatch.setattr(logprobs.transformer, "project_logits", poisoned)


def _poison_gradients(monkeypatch):
  """A finite loss whose gradient is not."""
  real = losses.surrogate

  @jax.custom_vjp
  def poisoned(x):
    return x

  poisoned.defvjp(lambda x: (x, None), lambda _, g: (g * jnp.inf,))
  monkeypatch.setattr(
    losses, "surrogate", lambda *a, **options: poisoned(real(*a, **options))
  )


@pytest.mark.parametrize("poison", [_poison_logits, _poison_gradients])
def test_a_step_poisoned_inside_the_network_changes_no_bit(poison, monkeypatch):
  poison(monkeypatch)  # before the program is traced
  learner = _learner(_config())
  batches = examples.batches(_SAMPLES, _config(), examples.mesh())
  state = learner.init_state(examples.PARAMS)
  before = _bits((state.params, state.opt_state, state.step))
  state, metrics = learner.update(state, batches)
  assert _bits((state.params, state.opt_state, state.step)) == before
  assert (metrics["skipped"], metrics["skipped_steps"]) == (1, 1)
  assert np.isfinite(metrics["loss"]) == (poison is _poison_gradients)
  assert not np.isfinite(metrics["grad_norm"])


def test_one_token_after_one_token_is_a_step():
  sample = dataclasses.replace(
    _SAMPLES[0],
    prompt_ids=np.array([3], np.int32),
    completion_ids=np.array([4], np.int32),
    behavior_logprobs=np.array([-5.0], np.float32),
  )
  config = _config(ratio="sequence", entropy_coefficient=0.1)
  learner = _learner(config)
  state, metrics = learner.update(
    learner.init_state(examples.PARAMS),
    examples.batches([sample], config, examples.mesh()),
  )
  assert metrics["tokens"] == 1
  assert int(state.step) == 1
  assert all(np.isfinite(value) for value in metrics.values())


def test_a_micro_batch_of_padding_adds_exactly_nothing():
  """What a short host contributes to a global step."""
  config = _config()
  learner = _learner(config)
  batches = examples.batches(_SAMPLES, config, examples.mesh())
  (empty,) = device_batch.to_micro_batches(
    [],
    row_tokens=64,
    batch_rows=4,
    batches=1,
    entries=batches[0].weight_BE.shape[1],
  )
  empty = device_batch.place(empty, examples.mesh())
  with_it, metrics = learner.update(
    learner.init_state(examples.PARAMS), [*batches, empty]
  )
  without, expected = learner.update(
    learner.init_state(examples.PARAMS), batches
  )
  assert _bits(with_it.params) == _bits(without.params)
  assert metrics == expected
  _, alone = learner.update(learner.init_state(examples.PARAMS), [empty])
  assert (alone["loss"], alone["grad_norm"], alone["skipped"]) == (0, 0, 0)
  assert all(np.isfinite(value) for value in alone.values())


def test_recomputed_logprobs_are_the_old_policy_and_show_the_drift():
  config = _config(importance_cap=1.1)
  learner = _learner(config)
  batches = examples.batches(_SAMPLES, config, examples.mesh())
  again = learner.recompute(examples.PARAMS, batches)
  state, metrics = learner.update(learner.init_state(examples.PARAMS), again)
  current = examples.naive_logprobs(_SAMPLES)
  differences = [
    c - s.behavior_logprobs for c, s in zip(current, _SAMPLES, strict=True)
  ]
  # On policy: every ratio is 1, and the surrogate is the weighted advantage.
  np.testing.assert_allclose(metrics["ratio_max"], 1, rtol=1e-5)
  expected = -sum(
    s.weight * s.advantage * np.minimum(np.exp(d), 1.1).sum()
    for s, d in zip(_SAMPLES, differences, strict=True)
  )
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
  drift = np.abs(np.concatenate(differences))
  np.testing.assert_allclose(metrics["drift_max"], drift.max(), rtol=1e-4)
  # After a step the ratio moves, the drift of the same data does not.
  _, later = learner.update(state, again)
  assert later["ratio_max"] > 1.01
  np.testing.assert_allclose(later["drift_max"], metrics["drift_max"])


def _bytes(tree):
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_accumulators_and_state_are_updated_in_place():
  """Peak memory of both programs, from the compiler."""
  config = _config()
  learner = _learner(config)
  state = learner.init_state(examples.PARAMS)
  batch = examples.batches(_SAMPLES, config, examples.mesh())[0]
  gradients, loss = learner._zeros(state.params)
  accumulate = learner._accumulate["flow_grpo"].lower(
    state.params, None, gradients, loss, batch
  )
  memory = accumulate.compile().memory_analysis()
  assert memory.alias_size_in_bytes >= _bytes(gradients)
  _, apply = learner._init_and_apply(state.params)
  memory = apply.lower(state, gradients, loss).compile().memory_analysis()
  assert memory.alias_size_in_bytes >= _bytes(state)
  # Besides its arguments: less than one more copy of moments and parameters.
  assert memory.temp_size_in_bytes < _bytes((state.params, state.opt_state))


@pytest.mark.parametrize("remat", ["attention", "block", "offload"])
def test_remat_changes_memory_and_not_the_gradient(remat):
  def gradient(remat):
    arch = dataclasses.replace(examples.ARCH, remat=remat, num_layers=4)
    params = examples.tiny_model.tiny_params(arch)
    config = _config(b1=0.0, max_grad_norm=1e9)
    learner = _learner(config, arch)
    batches = examples.batches(_SAMPLES, config, examples.mesh())
    state = learner.init_state(params)
    compiled = learner._accumulate["flow_grpo"].lower(
      state.params, None, *learner._zeros(state.params), batches[0]
    )
    memory = compiled.compile().memory_analysis().temp_size_in_bytes
    gradients, loss = learner._zeros(state.params)
    for batch in batches:
      gradients, loss, _ = learner._accumulate["flow_grpo"](
        state.params, None, gradients, loss, batch
      )
    return jax.tree.map(np.asarray, gradients), memory

  want, most = gradient("none")
  got, memory = gradient(remat)
  for one, other in zip(
    jax.tree.leaves(got), jax.tree.leaves(want), strict=True
  ):
    # Relative to the array: an entry that nearly cancels has few digits.
    assert np.abs(one - other).max() <= 5e-6 * np.abs(other).max()
  assert memory < most
