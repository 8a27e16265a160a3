"""The learner with adapters: the base stays, the chain rule holds."""

import dataclasses

import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import optax
import pytest

from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import lora, sharding
from agentflow_jax.testing import tiny_model

_LORA = lora.Lora(rank=2, alpha=6.0)
_ARCH = dataclasses.replace(examples.ARCH, lora=_LORA)
_BASE = examples.PARAMS
_START = lora.select(tiny_model.tiny_params(_ARCH, 5))
_SAMPLES = examples.samples(groups=2)


_config = examples.step_config


def _learner(config, on_mesh, arch=_ARCH):
  return learner_lib.Learner(
    arch,
    config,
    temperature=examples.TEMPERATURE,
    mesh=on_mesh,
    total_steps=100,
  )


def _gradient(state):
  moment = optax.tree_utils.tree_get(state.opt_state.inner, "mu")
  return jax.tree.map(np.asarray, moment)


def _step(config, arch, params, reference, objective, on_mesh=None):
  on_mesh = on_mesh or examples.mesh()
  placed = jax.device_put(
    reference, sharding.param_shardings(_ARCH.base, on_mesh)
  )
  learner = _learner(config, on_mesh, arch)
  return learner.update(
    learner.init_state(params),
    examples.batches(_SAMPLES, config, on_mesh),
    placed,
    objective=objective,
  )


@pytest.mark.parametrize("objective", ["flow_grpo", "imitation"])
def test_gradients_are_the_chain_rule_through_the_merged_weights(objective):
  """dA = s W' B^T and dB = s A^T W', with W' of full training."""
  config = _config()
  merged = lora.merged(_LORA, _BASE, _START)
  state, metrics = _step(config, _ARCH, _START, _BASE, objective)
  whole, expected = _step(config, _ARCH.base, merged, _BASE, objective)
  assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-5)
  found, dense = _gradient(state)["layers"], _gradient(whole)["layers"]
  for adapter in _LORA.adapters():
    pair = _START["layers"][adapter.module]
    a, b = (np.asarray(pair[n], np.float64) for n in (adapter.a, adapter.b))
    weight = dense[adapter.module][adapter.weight].astype(np.float64)
    layers, rank = len(a), _LORA.rank
    a, b = a.reshape(layers, -1, rank), b.reshape(layers, rank, -1)
    weight = weight.reshape(layers, a.shape[1], b.shape[2])
    for name, wanted in (
      (adapter.a, np.einsum("lio,lro->lir", weight, b)),
      (adapter.b, np.einsum("lir,lio->lro", a, weight)),
    ):
      got = found[adapter.module][name].reshape(wanted.shape)
      error = np.linalg.norm(got - _LORA.scale * wanted)
      assert error <= 1e-5 * np.linalg.norm(_LORA.scale * wanted), name


def test_only_adapters_have_a_state_and_only_they_move():
  config = _config(max_grad_norm=1.0)
  learner = _learner(config, examples.mesh())
  batches = examples.batches(_SAMPLES, config, examples.mesh())
  before = jax.tree.map(lambda x: np.asarray(x).copy(), _BASE)
  state = learner.init_state(_START)
  size = sum(x.size for x in jax.tree.leaves(_START))
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
  assert sum(x.size for x in moments) == 2 * size
  for _ in range(3):
    state, metrics = learner.update(state, batches, _BASE)
  assert metrics["skipped_steps"] == 0
  for found, kept in zip(
    jax.tree.leaves(_BASE), jax.tree.leaves(before), strict=True
  ):
    np.testing.assert_array_equal(found, kept)
  for found, start in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(_START), strict=True
  ):
    assert (found != start).any()


def test_a_fresh_adapter_is_its_reference():
  """Scores and KL at step 0, and a first gradient that moves B only."""
  config = _config()
  on_mesh = examples.mesh()
  fresh = jax.tree_util.tree_map_with_path(
    lambda path, x: x * ("_lora_a_" in path[-1].key), _START
  )
  learner = _learner(config, on_mesh)
  batches = examples.batches(_SAMPLES, config, on_mesh)
  state = learner.init_state(fresh)
  whole = learner.policy_params(state, _BASE)
  plain = _learner(config, on_mesh, _ARCH.base)
  np.testing.assert_array_equal(
    learner.score(whole, batches[0]), plain.score(_BASE, batches[0])
  )
  state, metrics = learner.update(state, batches, _BASE)
  assert abs(metrics["kl"]) < 1e-12  # two programs in one, rounded apart
  for module in _gradient(state)["layers"].values():
    for name, gradient in module.items():
      assert gradient.any() == ("_lora_b_" in name)


def test_the_policy_shares_the_buffers_of_its_base():
  learner = _learner(_config(), examples.mesh())
  state = learner.init_state(_START)
  whole = learner.policy_params(state, _BASE)
  assert whole["embedding_VD"] is _BASE["embedding_VD"]
  layers = whole["layers"]["mlp"]
  assert layers["up_DF"] is _BASE["layers"]["mlp"]["up_DF"]
  assert layers["up_lora_a_DR"] is state.params["layers"]["mlp"]["up_lora_a_DR"]


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 4, 2)])
def test_a_sharded_step_equals_that_of_one_device(sizes):
  config = _config()
  one, metrics = _step(config, _ARCH, _START, _BASE, "flow_grpo")
  many, found = _step(
    config, _ARCH, _START, _BASE, "flow_grpo", examples.mesh(*sizes)
  )
  assert found["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
  for a, b in zip(
    jax.tree.leaves(_gradient(one)),
    jax.tree.leaves(_gradient(many)),
    strict=True,
  ):
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


def test_float32_adapters_on_a_bfloat16_base():
  """Small steps count, though the base could not hold them; no masters."""
  arch = dataclasses.replace(_ARCH, dtype="bfloat16")
  base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), _BASE)
  config = _config(lr=1e-6, kl_coefficient=0.0)
  learner = _learner(config, examples.mesh(), arch)
  state = learner.init_state(_START)
  assert jax.tree.leaves(state.opt_state.masters) == []
  batches = examples.batches(_SAMPLES, config, examples.mesh())
  state, _ = learner.update(state, batches, base)
  for found, start in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(_START), strict=True
  ):
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - start).max() < 2e-6


def test_without_its_base_an_adapter_can_not_be_trained():
  learner = _learner(_config(kl_coefficient=0.0), examples.mesh())
  state = learner.init_state(_START)
  for objective in ("flow_grpo", "imitation"):
    with pytest.raises(ValueError, match="LoRA needs reference_params"):
      learner.update(state, [object()], objective=objective)
