"""Adapters: nothing at first, then what the merged weights would compute."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.core import errors, lora_config
from agentflow_jax.models import (
  attention,
  lora,
  mesh_axes,
  sharding,
  transformer,
)
from agentflow_jax.testing import tiny_model

_LORA = lora.Lora(rank=3, alpha=7.0)
_ARCH = tiny_model.tiny_architecture(lora=_LORA)
_BASE = tiny_model.tiny_params(_ARCH.base)


def _logits(arch, params, rows=2, width=9):
  tokens = np.random.default_rng(0).integers(0, arch.vocab_size, (rows, width))

  def run(params):
    hidden, _ = transformer.forward(
      arch,
      params,
      jnp.asarray(tokens, jnp.int32),
      jnp.broadcast_to(jnp.arange(width), (rows, width)),
      attention.tree_attend(jnp.full((rows, width), width)),
    )
    return transformer.project_logits(arch, params, hidden)

  return jax.jit(run)(params)


def _random_adapters(arch, seed=1):
  """Like a trained one: no array is zero."""
  return lora.select(tiny_model.tiny_params(arch, seed))


def _fresh(arch):
  return lora.select(transformer.init_params(arch, jax.random.key(0)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fresh_adapter_changes_no_bit(dtype):
  arch = dataclasses.replace(_ARCH, dtype=dtype)
  whole = lora.combine(_BASE, _fresh(arch))
  np.testing.assert_array_equal(_logits(arch, whole), _logits(arch.base, _BASE))


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("targets", [lora_config.TARGETS, ("k_proj", "o_proj")])
def test_adapters_compute_what_merged_weights_compute(family, targets):
  arch = tiny_model.tiny_architecture(
    family=family, lora=lora.Lora(rank=2, alpha=3.0, targets=targets)
  )
  base, adapters = tiny_model.tiny_params(arch.base), _random_adapters(arch)
  assert len(jax.tree.leaves(adapters)) == 2 * len(targets)
  beside = _logits(arch, lora.combine(base, adapters))
  merged = lora.merged(arch.lora, base, adapters)
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  inside = _logits(arch.base, merged)
  np.testing.assert_allclose(beside, inside, rtol=1e-5, atol=1e-5)
  assert np.abs(inside - _logits(arch.base, base)).max() > 0.1


def test_merging_is_the_sum_by_hand():
  adapters = _random_adapters(_ARCH)
  found = lora.merged(_LORA, _BASE, adapters)["layers"]
  for module, weight, a, b in (
    ("attention", "q_DNH", "q_lora_a_DR", "q_lora_b_RNH"),
    ("attention", "o_NHD", "o_lora_a_NHR", "o_lora_b_RD"),
    ("mlp", "down_FD", "down_lora_a_FR", "down_lora_b_RD"),
  ):
    pair = adapters["layers"][module]
    base = np.asarray(_BASE["layers"][module][weight], np.float64)
    layers, rank = len(base), _LORA.rank
    change = np.asarray(pair[a]).reshape(layers, -1, rank) @ np.asarray(
      pair[b]
    ).reshape(layers, rank, -1)
    expected = base + 7.0 / 3.0 * change.reshape(base.shape)
    # Where base and change nearly cancel, their rounding is what is left.
    np.testing.assert_allclose(
      found[module][weight], expected, rtol=1e-5, atol=1e-7
    )
  # What has no adapter is not touched, not even copied.
  assert found["mlp_norm"]["scale"] is _BASE["layers"]["mlp_norm"]["scale"]


def test_a_bfloat16_base_is_merged_in_float32():
  base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), _BASE)
  weight = lora.merged(_LORA, base, _random_adapters(_ARCH))["layers"]["mlp"]
  assert weight["up_DF"].dtype == jnp.float32


def test_a_is_drawn_as_peft_does_and_b_is_zero():
  adapters = _fresh(_ARCH)["layers"]
  for module, name, inputs in (
    ("attention", "o_lora_a_NHR", 32),
    ("mlp", "down_lora_a_FR", 64),
  ):
    drawn = np.asarray(adapters[module][name])
    assert 0.8 * inputs**-0.5 < np.abs(drawn).max() <= inputs**-0.5
    assert not (drawn[0] == drawn[1]).any()  # layers differ
  for module in adapters.values():
    for name, array in module.items():
      assert ("_lora_b_" in name) == (not np.asarray(array).any())


def test_select_and_combine_are_inverse():
  adapters = _random_adapters(_ARCH)
  whole = lora.combine(_BASE, adapters)
  assert jax.tree.structure(whole) == jax.tree.structure(
    transformer.param_shapes(_ARCH)
  )
  assert jax.tree.leaves(lora.select(whole)) == jax.tree.leaves(adapters)
  assert lora.select(_BASE) == {}
  assert "q_lora_a_DR" not in _BASE["layers"]["attention"]  # not changed


def test_adapters_lie_beside_their_weights_on_a_mesh():
  placed = sharding.param_shardings(_ARCH, sharding.make_mesh(2, 2, 2))
  specs = jax.tree.map(lambda x: x.spec, lora.select(placed))["layers"]
  spec = jax.P
  assert specs["attention"]["q_lora_a_DR"] == spec(None, "fsdp", None)
  assert specs["attention"]["q_lora_b_RNH"] == spec(None, None, "tensor", None)
  assert specs["attention"]["o_lora_a_NHR"] == spec(None, "tensor", None, None)
  assert specs["mlp"]["down_lora_b_RD"] == spec(None, None, "fsdp")
  assert mesh_axes.param_spec("o_lora_b_RD", 3) == spec(None, None, "fsdp")


@pytest.mark.parametrize(
  "fields", [{"rank": 0}, {"targets": ()}, {"targets": ("lm_head",)}]
)
def test_what_can_not_be_adapted_is_refused(fields):
  with pytest.raises(errors.ConfigError, match="q_proj, k_proj"):
    lora.Lora(**({"rank": 2, "alpha": 1.0} | fields))


def test_the_config_knows_every_target():
  assert tuple(a.target for a in _LORA.adapters()) == lora_config.TARGETS
