"""Meshes, placements, and a sharded network equal to a single-device one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from agentflow_jax.core import errors
from agentflow_jax.models import attention, lora, sharding, transformer
from agentflow_jax.testing import tiny_model

_ROWS, _TOKENS = 8, 24
_ADAPTERS = lora.Lora(rank=2, alpha=4.0)


@pytest.mark.parametrize(
  ("sizes", "want"),
  [
    ((-1, 1, 1), (8, 1, 1)),
    ((2, -1, 2), (2, 2, 2)),
    ((1, 2, -1), (1, 2, 4)),
    ((2, 2, 2), (2, 2, 2)),
  ],
)
def test_minus_one_takes_what_is_left(sizes, want):
  mesh = sharding.make_mesh(*sizes)
  assert tuple(mesh.shape.items()) == tuple(
    zip(("data", "fsdp", "tensor"), want, strict=True)
  )
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_a_mesh_of_some_devices():
  devices = jax.devices()[2:4]
  mesh = sharding.make_mesh(devices=devices)
  assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize(
  ("sizes", "needles"),
  [
    ((-1, 3, 1), ("mesh.fsdp=3", "mesh.data=-1", "8 devices")),
    ((2, 2, 1), ("mesh.data=2", "mesh.fsdp=2", "8 devices")),
    ((4, 4, 1), ("mesh.data=4", "mesh.fsdp=4", "8 devices")),
    ((-1, -1, 1), ("mesh.data=-1", "mesh.fsdp=-1", "only one")),
    ((8, 0, 1), ("mesh.fsdp=0", "positive")),
    ((-2, 1, 1), ("mesh.data=-2", "positive")),
  ],
)
def test_sizes_that_do_not_fit_name_the_fields(sizes, needles):
  with pytest.raises(errors.ConfigError) as caught:
    sharding.make_mesh(*sizes)
  for needle in needles:
    assert needle in str(caught.value)


@pytest.mark.parametrize(
  ("overrides", "mesh_sizes", "needles"),
  [
    ({}, (1, 1, 8), ("mesh.tensor=8", "num_heads=4")),
    ({}, (2, 1, 4), ("mesh.tensor=4", "num_kv_heads=2")),
    ({"vocab_size": 263}, (4, 1, 2), ("mesh.tensor=2", "vocab_size=263")),
    (
      {"intermediate_size": 63},
      (4, 1, 2),
      ("mesh.tensor=2", "intermediate_size=63"),
    ),
    ({"hidden_size": 30}, (2, 4, 1), ("mesh.fsdp=4", "hidden_size=30")),
  ],
)
def test_a_model_that_can_not_be_split_names_both_fields(
  overrides, mesh_sizes, needles
):
  arch = tiny_model.tiny_architecture(**overrides)
  with pytest.raises(errors.ConfigError) as caught:
    sharding.param_shardings(arch, sharding.make_mesh(*mesh_sizes))
  for needle in needles:
    assert needle in str(caught.value)


def test_where_each_kind_of_parameter_goes():
  arch = tiny_model.tiny_architecture(family="qwen3", tie_embeddings=False)
  shardings = sharding.param_shardings(arch, sharding.make_mesh(2, 2, 2))
  layers = shardings["layers"]
  want = {
    "embedding": (shardings["embedding_VD"], ("tensor", "fsdp")),
    "head": (shardings["head_VD"], ("tensor", "fsdp")),
    "norm": (layers["mlp_norm"]["scale"], ()),
    "head norm": (layers["attention"]["q_norm"]["scale"], ()),
    "q": (layers["attention"]["q_DNH"], (None, "fsdp", "tensor", None)),
    "o": (layers["attention"]["o_NHD"], (None, "tensor", None, "fsdp")),
    "gate": (layers["mlp"]["gate_DF"], (None, "fsdp", "tensor")),
    "down": (layers["mlp"]["down_FD"], (None, "tensor", "fsdp")),
  }
  for name, (got, spec) in want.items():
    assert got.spec == PartitionSpec(*spec), name


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_init_sharded_has_the_bits_of_one_device(param_dtype):
  arch = tiny_model.tiny_architecture()
  mesh = sharding.make_mesh(2, 2, 2)
  got = sharding.init_sharded(arch, jax.random.key(3), mesh, param_dtype)
  want = jax.jit(transformer.init_params, static_argnums=0)(
    arch, jax.random.key(3)
  )
  assert jax.tree.map(lambda x: x.sharding, got) == sharding.param_shardings(
    arch, mesh
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(
      x, y.astype(param_dtype), strict=True
    ),
    got,
    want,
  )


def _batch():
  tokens_BT = jax.random.randint(
    jax.random.key(0), (_ROWS, _TOKENS), 0, 264, jnp.int32
  )
  positions_BT = jnp.broadcast_to(jnp.arange(_TOKENS), tokens_BT.shape)
  return tokens_BT, positions_BT


def _logits(arch):
  def run(params, tokens_BT, positions_BT):
    attend = attention.tree_attend(jnp.full(tokens_BT.shape, _TOKENS))
    hidden, _ = transformer.forward(
      arch, params, tokens_BT, positions_BT, attend
    )
    return transformer.project_logits(arch, params, hidden)

  return run


def _gradient(arch):
  """(gradients, logits) of a loss."""
  logits = _logits(arch)

  def loss(*args):
    out = logits(*args)
    return jnp.mean(jax.nn.logsumexp(out, axis=-1)), out

  return jax.jit(jax.grad(loss, has_aux=True))


def _place(arch, params, mesh):
  rows = sharding.batch_sharding(mesh)
  return (
    jax.device_put(params, sharding.param_shardings(arch, mesh)),
    *(jax.device_put(x, rows) for x in _batch()),
  )


@pytest.mark.parametrize(
  ("overrides", "dense_limit"),
  [
    ({}, 2048),
    ({"family": "qwen3", "tie_embeddings": False, "remat": "block"}, 8),
    ({"remat": "attention"}, 8),
    ({"remat": "attention", "lora": _ADAPTERS}, 2048),
  ],
  ids=[
    "qwen2_dense",
    "qwen3_remat_blockwise",
    "chunked_blockwise",
    "chunked_adapters",
  ],
)
def test_sharded_logits_and_gradients_equal_single_device(
  overrides, dense_limit, monkeypatch
):
  monkeypatch.setattr(attention, "DENSE_LIMIT_TOKENS", dense_limit)
  monkeypatch.setattr(transformer, "_CPU_CHUNK_TOKENS", 3)
  arch = tiny_model.tiny_architecture(**overrides)
  params = tiny_model.tiny_params(arch)
  placed = _place(arch, params, sharding.make_mesh(2, 2, 2))
  want = _gradient(arch)(params, *_batch())
  got = _gradient(arch)(*placed)
  for one, other in zip(
    jax.tree.leaves(got), jax.tree.leaves(want), strict=True
  ):
    scale = float(jnp.abs(other).max())
    np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=0)


def test_work_is_divided_and_only_weights_and_sums_travel():
  """8 devices do 1/8 of the arithmetic; no activation is reshuffled.

  Left to itself XLA splits activations over D and adds all-to-alls.
  """
  arch = tiny_model.tiny_architecture()
  params = tiny_model.tiny_params(arch)
  placed = _place(arch, params, sharding.make_mesh(2, 2, 2))
  program = jax.jit(_logits(arch))
  one = program.lower(params, *_batch()).compile()
  many = program.lower(*placed).compile()
  ratio = many.cost_analysis()["flops"] / one.cost_analysis()["flops"]
  assert ratio < 0.14
  text = many.as_text()
  collectives = re.findall(
    r" (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\(", text
  )
  # Gathers: 7 matrices of the (scanned) layer, the embedding, the tied head.
  # Sums over tensor: attention output, feed-forward output, embedding rows.
  assert collectives.count("all-gather") == 9
  assert collectives.count("all-reduce") == 3
  assert len(collectives) == 12


def test_bfloat16_computation_gathers_bfloat16_weights():
  arch = tiny_model.tiny_architecture(dtype="bfloat16")
  params = tiny_model.tiny_params(arch)
  placed = _place(arch, params, sharding.make_mesh(2, 2, 2))
  text = jax.jit(_logits(arch)).lower(*placed).as_text()
  pinned = re.findall(r"sdy.sharding_constraint.*: tensor<([0-9x]+x\w+)>", text)
  weights = [shape for shape in pinned if shape.count("x") < 4]
  assert "32x64xbf16" in weights
  assert "32x64xf32" not in weights


def test_a_pure_data_mesh_is_left_to_propagation():
  """The sampler's mesh may have other axes and replicated parameters."""
  arch = tiny_model.tiny_architecture()
  params = tiny_model.tiny_params(arch)
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  whole = jax.sharding.NamedSharding(mesh, PartitionSpec())
  rows = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
  program = jax.jit(_logits(arch))
  args = (
    jax.device_put(params, whole),
    *(jax.device_put(x, rows) for x in _batch()),
  )
  assert "sharding_constraint" not in program.lower(*args).as_text()
  np.testing.assert_allclose(
    program(*args), program(params, *_batch()), atol=2e-5
  )


def test_rows_that_do_not_divide_are_kept_whole():
  arch = tiny_model.tiny_architecture()
  params = tiny_model.tiny_params(arch)
  mesh = sharding.make_mesh(2, 2, 2)
  placed = jax.device_put(params, sharding.param_shardings(arch, mesh))
  tokens_BT, positions_BT = (x[:3] for x in _batch())
  np.testing.assert_allclose(
    jax.jit(_logits(arch))(placed, tokens_BT, positions_BT),
    jax.jit(_logits(arch))(params, tokens_BT, positions_BT),
    atol=2e-5,
  )
