"""Properties of the network; its numbers are checked in tests/hf."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.models import attention, transformer
from agentflow_jax.testing import tiny_model

_FAMILIES = {
  "qwen2": {},
  "qwen3": {"family": "qwen3", "tie_embeddings": False, "head_dim": 12},
}


@functools.partial(jax.jit, static_argnums=0, static_argnames="unroll")
def _run(arch, params, tokens_BT, positions_BT, subtree_end_BT, unroll=1):
  hidden_BTD, _ = transformer.forward(
    arch,
    params,
    tokens_BT,
    positions_BT,
    attention.tree_attend(subtree_end_BT),
    unroll=unroll,
  )
  return transformer.project_logits(arch, params, hidden_BTD)


def _causal(tokens_BT):
  length = tokens_BT.shape[1]
  return (
    jnp.broadcast_to(jnp.arange(length), tokens_BT.shape),
    jnp.full(tokens_BT.shape, length),
  )


def _tokens(rows, length, seed=0):
  return jax.random.randint(jax.random.key(seed), (rows, length), 0, 264)


def test_tiny_parameters_are_not_flat_and_equal_seeds_give_equal_bits():
  for overrides in _FAMILIES.values():
    arch = tiny_model.tiny_architecture(**overrides)
    params = tiny_model.tiny_params(arch)
    assert sum(x.size for x in jax.tree.leaves(params)) == (
      arch.parameter_count()
    )
    jax.tree.map(
      np.testing.assert_array_equal, params, tiny_model.tiny_params(arch)
    )
    other = tiny_model.tiny_params(arch, seed=1)
    assert not np.array_equal(params["embedding_VD"], other["embedding_VD"])
    for leaf in jax.tree.leaves(params):
      assert leaf.dtype == jnp.float32
      assert leaf.std() > 0
    tokens = _tokens(2, 30)
    assert 0.7 < _run(arch, params, tokens, *_causal(tokens)).std() < 1.4


@pytest.mark.parametrize("name", _FAMILIES)
def test_a_packed_tree_equals_its_unpacked_sequences(name):
  """Prompt of 6, two branches of 4 and 5, beside another sequence of 3."""
  arch = tiny_model.tiny_architecture(**_FAMILIES[name])
  params = tiny_model.tiny_params(arch)
  prompt, left, right, other = (
    np.asarray(_tokens(1, n, seed=n))[0] for n in (6, 4, 5, 3)
  )
  row = np.concatenate([prompt, left, right, other])[None]
  positions = np.array([[*range(6), *range(6, 10), *range(6, 11), 0, 1, 2]])
  ends = np.array([[15] * 6 + [10] * 4 + [15] * 5 + [18] * 3])
  packed = _run(arch, params, row, positions, jnp.asarray(ends))[0]
  for branch, where in ((left, slice(6, 10)), (right, slice(10, 15))):
    whole = np.concatenate([prompt, branch])[None]
    want = _run(arch, params, whole, *_causal(whole))[0]
    np.testing.assert_allclose(packed[:6], want[:6], atol=1e-5)
    np.testing.assert_allclose(packed[where], want[6:], atol=1e-5)
  alone = _run(arch, params, other[None], *_causal(other[None]))[0]
  np.testing.assert_allclose(packed[15:], alone, atol=1e-5)


def test_only_relative_positions_matter():
  arch = tiny_model.tiny_architecture()
  params = tiny_model.tiny_params(arch)
  tokens = _tokens(1, 12)
  positions, ends = _causal(tokens)
  near = _run(arch, params, tokens, positions, ends)
  far = _run(arch, params, tokens, positions + 300, ends)
  np.testing.assert_allclose(near, far, atol=2e-4)
  stretched = _run(arch, params, tokens, positions * 2, ends)
  assert np.abs(near - stretched).max() > 0.1


@pytest.mark.parametrize("name", _FAMILIES)
def test_remat_and_unroll_change_no_number(name, monkeypatch):
  monkeypatch.setattr(transformer, "_CPU_CHUNK_TOKENS", 4)
  tokens = _tokens(2, 10)

  def gradient(unroll=1, **overrides):
    arch = tiny_model.tiny_architecture(**(_FAMILIES[name] | overrides))

    def loss(params):
      logits = _run(arch, params, tokens, *_causal(tokens), unroll=unroll)
      return jnp.mean(jax.nn.logsumexp(logits, axis=-1))

    return jax.jit(jax.grad(loss))(tiny_model.tiny_params(arch))

  want = gradient()
  for other in (
    gradient(remat="block"),
    gradient(remat="attention"),
    gradient(unroll=2),
  ):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6, rtol=1e-5),
      want,
      other,
    )


@pytest.mark.parametrize("name", _FAMILIES)
def test_layers_taken_apart_are_the_same_network(name):
  arch = tiny_model.tiny_architecture(**_FAMILIES[name])
  params = tiny_model.tiny_params(arch)
  apart = transformer.unstack(params)
  assert len(apart["layers"]) == arch.num_layers
  tokens = _tokens(2, 10)
  stacked = _run(arch, params, tokens, *_causal(tokens))
  one_by_one = _run(arch, apart, tokens, *_causal(tokens))
  np.testing.assert_allclose(stacked, one_by_one, atol=1e-6)
  first, *others = apart["layers"]
  swapped = _run(
    arch, apart | {"layers": (*others, first)}, tokens, *_causal(tokens)
  )
  assert np.abs(stacked - swapped).max() > 0.01


def test_remat_saves_less():
  tokens = _tokens(4, 128)

  def temporary_bytes(remat):
    arch = tiny_model.tiny_architecture(num_layers=8, remat=remat)

    def loss(params):
      return jnp.mean(_run(arch, params, tokens, *_causal(tokens)))

    compiled = jax.jit(jax.grad(loss)).lower(tiny_model.tiny_params(arch))
    return compiled.compile().memory_analysis().temp_size_in_bytes

  every, block = temporary_bytes("none"), temporary_bytes("block")
  assert block < 0.6 * every
  attended = 4 * 128 * 32 * 4  # bytes: rows, tokens, heads and dims, float32
  assert block < temporary_bytes("attention") < block + 2 * 8 * attended


def test_what_attention_gave_is_not_computed_again(monkeypatch):
  """Its loops over blocks run forward and backward; with `block` once more."""
  monkeypatch.setattr(attention, "DENSE_LIMIT_TOKENS", 64)
  tokens = _tokens(1, 80)  # two blocks

  def loops(remat):
    arch = tiny_model.tiny_architecture(remat=remat)

    def loss(params):
      return jnp.mean(_run(arch, params, tokens, *_causal(tokens)))

    compiled = jax.jit(jax.grad(loss)).lower(tiny_model.tiny_params(arch))
    return compiled.compile().as_text().count(" while(")

  assert loops("none") == loops("attention")
  assert loops("block") > loops("attention")


def test_a_feed_forward_network_is_never_whole(monkeypatch):
  """With `attention` no array of 96 tokens is as wide as 80 in between."""
  monkeypatch.setattr(transformer, "_CPU_CHUNK_TOKENS", 8)
  tokens = _tokens(1, 96)

  def wide_arrays(remat):
    arch = tiny_model.tiny_architecture(remat=remat, intermediate_size=80)

    def loss(params):
      return jnp.mean(_run(arch, params, tokens, *_causal(tokens)))

    compiled = jax.jit(jax.grad(loss)).lower(tiny_model.tiny_params(arch))
    return len(re.findall(r"f32\[(?:1,)?96,80\]", compiled.compile().as_text()))

  assert wide_arrays("block") > 0
  assert wide_arrays("attention") == 0


def test_the_carry_passes_through_every_layer_in_order():
  arch = tiny_model.tiny_architecture(num_layers=3)
  params = tiny_model.tiny_params(arch)
  tokens = _tokens(1, 5)
  positions, ends = _causal(tokens)
  dense = attention.tree_attend(ends)

  def attend(layer, q, k, v, carry):
    seen, count = carry
    out, _ = dense(layer, q, k, v, None)
    return out, (seen.at[count].set(layer), count + 1)

  start = (jnp.full(3, -1), jnp.zeros((), jnp.int32))
  _, (seen, count) = jax.jit(
    lambda params: transformer.forward(
      arch, params, tokens, positions, attend, carry=start
    )
  )(params)
  np.testing.assert_array_equal(seen, [0, 1, 2])
  assert count == 3


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_bfloat16_computes_in_bfloat16_and_returns_float32_logits(param_dtype):
  arch = tiny_model.tiny_architecture(dtype="bfloat16")
  params = tiny_model.tiny_params(arch)
  params = jax.tree.map(lambda x: x.astype(param_dtype), params)
  tokens = _tokens(2, 16)
  positions, ends = _causal(tokens)
  hidden, _ = jax.eval_shape(
    lambda params: transformer.forward(
      arch, params, tokens, positions, attention.tree_attend(ends)
    ),
    params,
  )
  assert hidden.dtype == jnp.bfloat16
  logits = _run(arch, params, tokens, positions, ends)
  assert logits.dtype == jnp.float32
  full = tiny_model.tiny_architecture()
  want = _run(full, tiny_model.tiny_params(full), tokens, positions, ends)
  error = jnp.linalg.norm(logits - want) / jnp.linalg.norm(want)
  assert 1e-4 < error < 0.05


def test_init_params_have_the_shapes_and_scales_they_should():
  arch = tiny_model.tiny_architecture(hidden_size=64)
  params = jax.jit(transformer.init_params, static_argnums=0)(
    arch, jax.random.key(0)
  )
  shapes = transformer.param_shapes(arch)
  assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(
    lambda x: x.shape, shapes
  )
  attention_params = params["layers"]["attention"]
  np.testing.assert_allclose(attention_params["q_DNH"].std(), 0.02, rtol=0.1)
  assert not np.array_equal(*attention_params["q_DNH"])  # layers differ
  assert (attention_params["q_bias_NH"] == 0).all()
  assert (params["layers"]["mlp_norm"]["scale"] == 1).all()
