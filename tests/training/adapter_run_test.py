"""A run that trains adapters: its files, its resume, the model it makes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import loop_parts
import numpy as np
import pytest

from agentflow_jax.core import errors
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import lora, sharding
from agentflow_jax.testing import tiny_model
from agentflow_jax.training import (
  adapter_files,
  array_store,
  checkpointing,
  model_files,
  model_loading,
)

_LORA = lora.Lora(rank=2, alpha=8.0)
_ARCH = tiny_model.tiny_architecture(vocab_size=300, lora=_LORA)
_BASE = tiny_model.tiny_params(_ARCH.base)
_ADAPTERS = lora.select(tiny_model.tiny_params(_ARCH, 1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  return tokenizer_training.train_tokenizer(
    ["the capital of Laos is Vientiane"] * 20,
    300,
    tmp_path_factory.mktemp("tokenizer"),
  )


def _run_dir(path, tokenizer, base_params=_BASE):
  """base/, model/ and one checkpoint of adapters."""
  model_loading.save_model(path / "base", _ARCH.base, base_params, tokenizer)
  model_files.save_description(path / "model", _ARCH.base, tokenizer)
  adapter_files.save(
    path / "model", adapter_files.describe(_LORA, "base", base_params, path)
  )
  with checkpointing.Checkpointer(
    path / "checkpoints", keep_last=1, keep_best=True
  ) as checkpointer:
    checkpointer.save(1, {"params": _ADAPTERS}, {})
  return path


def _same(found, expected, **tolerance):
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(found),
    jax.tree.leaves(expected),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, err_msg=str(path), **tolerance)


def test_a_run_with_adapters_is_the_model_they_make(tmp_path, tokenizer):
  run = _run_dir(tmp_path / "run", tokenizer)
  moved = tmp_path / "moved"
  run.rename(moved)  # its base goes along
  expected = lora.merged(_LORA, _BASE, _ADAPTERS)
  model = model_loading.load_model(moved)
  assert model.arch == _ARCH.base
  _same(model.params, expected, rtol=1e-6, atol=1e-7)
  on_mesh = model_loading.load_model(moved, mesh=sharding.make_mesh(2, 2, 2))
  _same(on_mesh.params, expected, rtol=1e-6, atol=1e-7)
  half = model_loading.load_model(moved, param_dtype="bfloat16")
  assert {x.dtype for x in jax.tree.leaves(half.params)} == {
    jnp.dtype(jnp.bfloat16)
  }
  alone = model_loading.load_adapters(moved)
  assert (alone.arch, alone.base_dir) == (_ARCH, moved / "base")
  _same(alone.adapters, _ADAPTERS, rtol=0)
  with pytest.raises(errors.CheckpointError, match="no run that trained"):
    model_loading.load_adapters(moved / "base")


def test_another_base_is_refused(tmp_path, tokenizer):
  run = _run_dir(tmp_path / "run", tokenizer)
  other = adapter_files.describe(
    _LORA, "base", tiny_model.tiny_params(_ARCH.base, 7), run
  )
  with pytest.raises(errors.CheckpointError, match="another base"):
    adapter_files.save(run / "model", other)
  file = run / "model" / "adapter.json"
  fields = json.loads(file.read_text())
  file.write_text(json.dumps(fields | {"base_checksum": "00000000"}))
  with pytest.raises(errors.CheckpointError, match="weights have changed"):
    model_loading.load_model(run)
  file.write_text("{")
  with pytest.raises(errors.CheckpointError, match=r"adapter\.json can not"):
    model_loading.load_model(run)


def test_a_run_may_start_from_one_with_adapters(tmp_path, tokenizer):
  """Merged weights differ in last bits between meshes: no checksum."""
  first = _run_dir(tmp_path / "first", tokenizer)
  described = adapter_files.describe(_LORA, first, _BASE, tmp_path / "second")
  assert described.base_checksum == ""
  adapter_files.check_base(described, first, tiny_model.tiny_params(_ARCH, 9))
  assert described.base_dir(tmp_path / "second") == first


def test_the_checksum_sees_a_bit_and_a_swap_but_no_mesh():
  start = adapter_files.checksum(_BASE)
  mesh = sharding.make_mesh(2, 2, 2)
  placed = jax.device_put(_BASE, sharding.param_shardings(_ARCH.base, mesh))
  assert adapter_files.checksum(placed) == start
  table = _BASE["embedding_VD"]
  bit = np.asarray(table).copy()
  bit.view(np.uint32)[3, 2] ^= 1
  swapped = np.asarray(table)[::-1].copy()
  for changed in (bit, swapped):
    other = _BASE | {"embedding_VD": jnp.asarray(changed)}
    assert adapter_files.checksum(other) != start


def test_adapters_train_through_the_loop_and_resume_to_the_bit(tmp_path):
  arch = dataclasses.replace(loop_parts.ARCH, lora=_LORA)
  config = loop_parts.make_config(learner__kl_coefficient=0.1)
  learner = learner_lib.Learner(
    arch,
    config.learner,
    temperature=0.7,
    mesh=sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]),
    total_steps=4,
  )

  def attempt(path, iterations):
    run = loop_parts.Run(
      path,
      learner,
      adapters=lora.select(tiny_model.tiny_params(arch, 3)),
      learner__kl_coefficient=0.1,
      training__iterations=iterations,
    )
    assert run.go() is not None
    return run

  whole = attempt(tmp_path / "whole", 2)
  attempt(tmp_path / "cut", 1)
  attempt(tmp_path / "cut", 2)
  found, expected = (
    _arrays(tmp_path / name / "checkpoints" / "step_00000002")
    for name in ("cut", "whole")
  )
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert array.tobytes() == found[name].tobytes(), name
    assert array.ndim == 0 or "_lora_" in name, name
  # The frozen base is what it was, and it is what the sampler gets.
  base = tiny_model.tiny_params(loop_parts.ARCH)
  _same(whole.base, base, rtol=0)
  assert jax.tree.structure(whole.sampler.params) == jax.tree.structure(
    lora.combine(base, lora.select(tiny_model.tiny_params(arch)))
  )


def _arrays(directory):
  info = array_store.read_info(directory)
  targets = {
    name: np.empty(array["shape"], array["dtype"])
    for name, array in info["arrays"].items()
  }
  return array_store.restore(directory, targets)
