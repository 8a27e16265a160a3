"""The copying start: what it promises holds before any training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import initialisation, presets, transformer

_ARCH = dataclasses.replace(
  presets.ARCHITECTURES["worldfacts_planner"], vocab_size=512
)
_ROWS, _TOKENS = 2, 48


@pytest.fixture(scope="module")
def params():
  return _params(0)


def _params(seed, arch=_ARCH):
  init = jax.jit(initialisation.copying_params, static_argnums=0)
  return init(arch, jax.random.key(seed))


def _forward(params):
  """(attention weights [L, B, N, T, T], hidden states [B, T, D])."""
  heads, sharing = _ARCH.num_heads, _ARCH.num_heads // _ARCH.num_kv_heads
  shape = (_ARCH.num_layers, _ROWS, heads, _TOKENS, _TOKENS)
  causal_TT = np.tril(np.ones((_TOKENS, _TOKENS), bool))

  def attend(layer, q_BTNH, k_BTKH, v_BTKH, carry):
    k_BTNH, v_BTNH = (jnp.repeat(x, sharing, 2) for x in (k_BTKH, v_BTKH))
    score = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BTNH)
    score = jnp.where(causal_TT, score * _ARCH.head_dim**-0.5, -1e30)
    weight = jax.nn.softmax(score)
    out = jnp.einsum("bnts,bsnh->btnh", weight, v_BTNH)
    return out, carry.at[layer].set(weight)

  tokens_BT = np.random.default_rng(1).integers(
    0, _ARCH.vocab_size, (_ROWS, _TOKENS)
  )
  hidden, weight = transformer.forward(
    _ARCH,
    params,
    jnp.asarray(tokens_BT, jnp.int32),
    jnp.broadcast_to(jnp.arange(_TOKENS), (_ROWS, _TOKENS)),
    attend,
    jnp.zeros(shape),
  )
  return np.asarray(weight), np.asarray(hidden)


def test_a_head_of_the_first_layer_looks_at_the_previous_token(params):
  weight, _ = _forward(params)
  here = np.arange(2, _TOKENS)
  previous_N = weight[0][:, :, here, here - 1].mean(axis=(0, 2))
  assert previous_N.max() > 0.8
  # The plain start has no such head: what is tested is the construction.
  plain = transformer.init_params(_ARCH, jax.random.key(0))
  weight, _ = _forward(plain)
  assert weight[0][:, :, here, here - 1].mean(axis=(0, 2)).max() < 0.3


def test_later_layers_hand_on_what_they_attend(params):
  attention = params["layers"]["attention"]
  sharing = _ARCH.num_heads // _ARCH.num_kv_heads
  handed_LDE = np.einsum(
    "ldkh,lkhe->lde",
    attention["v_DKH"][1:],
    attention["o_NHD"][1:, ::sharing],
  )
  np.testing.assert_array_equal(
    handed_LDE, np.broadcast_to(np.eye(_ARCH.hidden_size), handed_LDE.shape)
  )


def test_fewer_value_dimensions_hand_on_what_fits():
  arch = dataclasses.replace(_ARCH, head_dim=32)
  attention = _params(0, arch)["layers"]["attention"]
  handed_DE = np.einsum(
    "dkh,khe->de", attention["v_DKH"][1], attention["o_NHD"][1, ::2]
  )
  np.testing.assert_array_equal(handed_DE, np.diag([1] * 64 + [0] * 64))


def test_logits_start_near_unit_scale(params):
  _, hidden_BTD = _forward(params)
  logits = np.asarray(
    transformer.project_logits(_ARCH, params, jnp.asarray(hidden_BTD))
  )
  assert np.isfinite(logits).all()
  assert 0.2 < logits.std() < 5


def test_it_is_a_start_of_the_same_architecture(params):
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
  expected = jax.tree.map(
    lambda x: (x.shape, x.dtype), transformer.param_shapes(_ARCH)
  )
  assert shapes == expected


def test_a_key_gives_the_same_bits_again(params):
  same, other = _params(0), _params(1)
  for a, b, c in zip(*map(jax.tree.leaves, (params, same, other)), strict=True):
    np.testing.assert_array_equal(a, b)
    if np.unique(np.asarray(a)).size > 50:  # no scale, no built-in head
      assert (np.asarray(a) != np.asarray(c)).any()


@pytest.mark.parametrize(
  "fields",
  [
    {"family": "qwen3"},
    {"tie_embeddings": False},
    {"num_layers": 1},
  ],
)
def test_architectures_that_can_not_express_it_are_refused(fields):
  arch: architecture_lib.Architecture = dataclasses.replace(_ARCH, **fields)
  with pytest.raises(ValueError, match="copying start"):
    initialisation.copying_params(arch, jax.random.key(0))
