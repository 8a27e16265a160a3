"""save_model and load_model: runs, models, Hugging Face directories."""

import dataclasses
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.core import errors
from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.models import sharding as sharding_lib
from agentflow_jax.testing import tiny_model
from agentflow_jax.training import checkpointing, model_files, model_loading

_ARCH = tiny_model.tiny_architecture(vocab_size=300)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  texts = ["the capital of Laos is Vientiane"] * 20
  return tokenizer_training.train_tokenizer(
    texts, 300, tmp_path_factory.mktemp("tokenizer")
  )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, tokenizer):
  path = tmp_path_factory.mktemp("models") / "base"
  params = tiny_model.tiny_params(_ARCH)
  model_loading.save_model(path, _ARCH, params, tokenizer)
  return path


def _same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def _run_dir(path, tokenizer, accuracies):
  """A run that saved step 1, 2, ...; its params are of seed = step."""
  model_files.save_description(path / "model", _ARCH, tokenizer)
  (path / "config.json").write_text("{}")
  with checkpointing.Checkpointer(
    path / "checkpoints", keep_last=9, keep_best=True
  ) as checkpointer:
    for step, accuracy in enumerate(accuracies, start=1):
      state = {
        "params": tiny_model.tiny_params(_ARCH, step),
        "opt_state": (jnp.zeros(3),),
        "step": jnp.int32(step),
      }
      metrics = {} if accuracy is None else {"accuracy": accuracy}
      checkpointer.save(step, state, {}, metrics=metrics)
  return path


def test_a_model_comes_back(model_dir, tokenizer):
  model = model_loading.load_model(model_dir)
  assert model.arch == _ARCH
  _same(model.params, tiny_model.tiny_params(_ARCH))
  text = "Vientiane <|im_end|>"
  assert model.tokenizer.encode(text) == tokenizer.encode(text)
  assert model.tokenizer.eos_ids == tokenizer.eos_ids


def test_the_identity_tells_weights_apart_on_any_mesh(
  model_dir, tokenizer, tmp_path
):
  model = model_loading.load_model(model_dir)
  mesh = sharding_lib.make_mesh(2, 2, 2)
  split = model_loading.load_model(model_dir, mesh=mesh)
  assert model.identity() == split.identity()
  assert model.identity().startswith("weights ")
  other = tiny_model.tiny_params(_ARCH, 9)
  model_loading.save_model(tmp_path / "other", _ARCH, other, tokenizer)
  found = model_loading.load_model(tmp_path / "other")
  assert found.identity() != model.identity()


def test_types_and_remat_are_the_callers(model_dir):
  model = model_loading.load_model(
    model_dir, dtype="bfloat16", param_dtype="bfloat16", remat="block"
  )
  assert model.arch == dataclasses.replace(
    _ARCH, dtype="bfloat16", remat="block"
  )
  expected = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), tiny_model.tiny_params(_ARCH)
  )
  _same(model.params, expected)


def test_bfloat16_weights_stay_bfloat16(tmp_path, tokenizer):
  params = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), tiny_model.tiny_params(_ARCH)
  )
  model_loading.save_model(tmp_path / "a", _ARCH, params, tokenizer)
  _same(model_loading.load_model(tmp_path / "a").params, params)


def test_a_model_goes_onto_a_mesh(model_dir):
  mesh = sharding_lib.make_mesh(2, 2, 2)
  model = model_loading.load_model(model_dir, mesh=mesh)
  _same(model.params, tiny_model.tiny_params(_ARCH))
  shardings = sharding_lib.param_shardings(_ARCH, mesh)
  for leaf, sharding in zip(
    jax.tree.leaves(model.params), jax.tree.leaves(shardings), strict=True
  ):
    assert leaf.sharding == sharding


@pytest.mark.parametrize(
  ("accuracies", "wanted"),
  [([None, None], 2), ([0.9, 0.1, None], 1), ([0.1, 0.9, 0.2], 2)],
)
def test_a_run_gives_its_best_else_its_latest(
  tmp_path, tokenizer, accuracies, wanted
):
  model = model_loading.load_model(_run_dir(tmp_path, tokenizer, accuracies))
  _same(model.params, tiny_model.tiny_params(_ARCH, wanted))
  assert model.step == wanted
  assert model.identity().startswith(f"step {wanted}, weights ")
  assert model.tokenizer.encode("Laos") == tokenizer.encode("Laos")


def test_a_run_without_a_checkpoint_is_named(tmp_path, tokenizer):
  run_dir = _run_dir(tmp_path, tokenizer, [])
  with pytest.raises(errors.CheckpointError, match="no complete checkpoint"):
    model_loading.load_model(run_dir)


def test_a_hugging_face_directory_is_imported(tmp_path, tokenizer):
  params = tiny_model.tiny_params(_ARCH)
  exporting.export_checkpoint(
    tmp_path / "hf", _ARCH, params, tokenizer=tokenizer
  )
  model = model_loading.load_model(tmp_path / "hf")
  _same(model.params, params)
  assert model.tokenizer.encode("Laos") == tokenizer.encode("Laos")


def test_a_directory_that_is_no_model_is_named(tmp_path):
  with pytest.raises(errors.CheckpointError) as caught:
    model_loading.load_model(tmp_path)
  for name in ("architecture.json", "config.json", str(tmp_path)):
    assert name in str(caught.value)


def test_weights_of_another_architecture_are_named(tmp_path, model_dir):
  shutil.copytree(model_dir, tmp_path / "a")
  file = tmp_path / "a" / "architecture.json"
  file.write_text(
    file.read_text().replace('"num_layers": 2', '"num_layers": 3')
  )
  with pytest.raises(errors.CheckpointError) as caught:
    model_loading.load_model(tmp_path / "a")
  assert "params/layers/" in str(caught.value)
  assert "float32[2, " in str(caught.value)
  assert "float32[3, " in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"layers": 3}', "{}"])
def test_a_damaged_architecture_is_named(tmp_path, model_dir, text):
  shutil.copytree(model_dir, tmp_path / "a")
  (tmp_path / "a" / "architecture.json").write_text(text)
  with pytest.raises(errors.CheckpointError, match="architecture.json can not"):
    model_loading.load_model(tmp_path / "a")


def test_a_model_is_not_overwritten(model_dir, tokenizer):
  params = tiny_model.tiny_params(_ARCH, 1)
  with pytest.raises(errors.CheckpointError, match="holds a model already"):
    model_loading.save_model(model_dir, _ARCH, params, tokenizer)


def test_a_killed_attempt_is_no_model_and_can_be_repeated(
  tmp_path, model_dir, tokenizer
):
  """Whatever is missing, architecture.json is, because it comes last."""
  shutil.copytree(model_dir, tmp_path / "a")
  (tmp_path / "a" / "architecture.json").unlink()
  with pytest.raises(errors.CheckpointError, match="is no model"):
    model_loading.load_model(tmp_path / "a")
  params = tiny_model.tiny_params(_ARCH, 5)
  model_loading.save_model(tmp_path / "a", _ARCH, params, tokenizer)
  _same(model_loading.load_model(tmp_path / "a").params, params)


def test_architecture_is_written_last(tmp_path, tokenizer):
  class Torn:
    def save(self, directory):
      tokenizer.save(directory)
      raise OSError("killed")

  params = tiny_model.tiny_params(_ARCH)
  with pytest.raises(OSError, match="killed"):
    model_loading.save_model(tmp_path / "a", _ARCH, params, Torn())
  assert not (tmp_path / "a" / "architecture.json").exists()


def test_a_resumed_run_keeps_its_description(tmp_path, tokenizer):
  model_files.save_description(tmp_path, _ARCH, tokenizer)
  before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
  model_files.save_description(tmp_path, _ARCH, tokenizer)
  assert before == sorted(
    (p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")
  )
  other = dataclasses.replace(_ARCH, num_layers=3)
  with pytest.raises(errors.CheckpointError, match="another architecture"):
    model_files.save_description(tmp_path, other, tokenizer)


def test_loading_a_model_does_not_touch_a_live_run(tmp_path, tokenizer):
  """A reader must not delete what a writer has not finished."""
  run_dir = _run_dir(tmp_path, tokenizer, [None])
  half = run_dir / "checkpoints" / "step_00000002" / "state"
  half.mkdir(parents=True)
  model_loading.load_model(run_dir)
  assert half.exists()


def test_reading_needs_no_orbax_until_it_reads():
  code = (
    "import sys\n"
    "from agentflow_jax.training import checkpointing, model_loading\n"
    "checkpointing.Checkpointer('none', keep_last=1, keep_best=True)\n"
    "assert 'orbax' not in sys.modules\n"
    "assert 'transformers' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
