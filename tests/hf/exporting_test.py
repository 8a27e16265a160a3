"""An export is complete and verified, or it is not there."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.core import errors
from agentflow_jax.core.messages import Message
from agentflow_jax.hf import (
  exporting,
  importing,
  staging,
  tensor_file,
  tokenizer_training,
)
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.models import sharding
from agentflow_jax.testing import tiny_model


@pytest.fixture(scope="module")
def model():
  arch = tiny_model.tiny_architecture(vocab_size=320)
  return arch, tiny_model.tiny_params(arch)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  return tokenizer_training.train_tokenizer(
    ["the capital of Laos is Vientiane " * 9],
    320,
    tmp_path_factory.mktemp("tokenizer"),
  )


def _content(directory: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_directory_holds_everything_and_nothing_else(
  model, tokenizer, tmp_path
):
  arch, params = model
  exporting.export_checkpoint(
    tmp_path / "out",
    arch,
    params,
    tokenizer=tokenizer,
    generation={"temperature": 0.7},
  )
  assert [path.name for path in tmp_path.iterdir()] == ["out"]
  assert set(_content(tmp_path / "out")) == {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    staging.MARKER_FILE,
  }
  generation = json.loads(
    (tmp_path / "out" / "generation_config.json").read_text()
  )
  assert generation == {
    "temperature": 0.7,
    "do_sample": True,
    "eos_token_id": list(tokenizer.eos_ids),
    "pad_token_id": tokenizer.pad_id,
  }
  read = tokenizer_lib.HfTokenizer.from_directory(tmp_path / "out")
  messages = [Message("user", "capital <|im_end|>")]
  assert read.render_chat(messages) == tokenizer.render_chat(messages)


def test_index_and_shards_agree(model, tmp_path):
  arch, params = model
  limit = 20_000
  exporting.export_checkpoint(
    tmp_path / "out", arch, params, max_shard_bytes=limit
  )
  index = json.loads((tmp_path / "out" / importing.INDEX_FILE).read_text())
  assert index["metadata"]["total_size"] == 4 * arch.parameter_count()
  files = set(index["weight_map"].values())
  assert files == {p.name for p in (tmp_path / "out").glob("*.safetensors")}
  for file in files:
    stored = tensor_file.read_header(tmp_path / "out" / file)
    assert stored.keys() == {
      name for name, owner in index["weight_map"].items() if owner == file
    }
    size = sum(4 * int(np.prod(t.shape)) for t in stored.values())
    assert size <= limit or len(stored) == 1


def test_sharded_parameters_give_the_same_file(model, tmp_path):
  arch, params = model
  placed = jax.device_put(
    params, sharding.param_shardings(arch, sharding.make_mesh(2, 2, 2))
  )
  exporting.export_checkpoint(tmp_path / "one", arch, params)
  exporting.export_checkpoint(tmp_path / "many", arch, placed)
  assert _content(tmp_path / "one") == _content(tmp_path / "many")


def test_bfloat16_compute_and_parameters(model, tmp_path):
  arch, params = model
  arch = tiny_model.tiny_architecture(vocab_size=320, dtype="bfloat16")
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  exporting.export_checkpoint(
    tmp_path / "out", arch, params, param_dtype="bfloat16"
  )
  header = tensor_file.read_header(tmp_path / "out" / importing.SINGLE_FILE)
  assert {stored.code for stored in header.values()} == {"BF16"}
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["dtype"] == "bfloat16"


def test_a_taken_target_is_refused_and_untouched(model, tmp_path):
  arch, params = model
  target = tmp_path / "out"
  target.mkdir()
  (target / "thesis.txt").write_text("years of work")
  for overwrite in (False, True):
    with pytest.raises(errors.CheckpointError, match="not an earlier export"):
      exporting.export_checkpoint(target, arch, params, overwrite=overwrite)
  assert _content(target) == {"thesis.txt": b"years of work"}
  file = tmp_path / "file"
  file.write_text("x")
  with pytest.raises(errors.CheckpointError, match="not a directory"):
    exporting.export_checkpoint(file, arch, params, overwrite=True)
  assert file.read_text() == "x"


def test_an_empty_directory_is_a_target(model, tmp_path):
  (tmp_path / "out").mkdir()
  exporting.export_checkpoint(tmp_path / "out", *model)
  assert (tmp_path / "out" / "config.json").exists()


def test_an_earlier_export_is_replaced_only_when_asked(model, tmp_path):
  arch, params = model
  target = tmp_path / "out"
  exporting.export_checkpoint(target, arch, params, max_shard_bytes=20_000)
  before = _content(target)
  with pytest.raises(errors.CheckpointError, match="earlier export"):
    exporting.export_checkpoint(target, arch, params)
  assert _content(target) == before
  exporting.export_checkpoint(target, arch, params, overwrite=True)
  after = _content(target)
  assert importing.SINGLE_FILE in after
  assert importing.INDEX_FILE not in after
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _flip_last_byte(write_file):
  def broken(file, tensors, dtype):
    write_file(file, tensors, dtype)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))

  return broken


def test_a_flipped_bit_in_the_weights_fails_verification(
  model, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    tensor_file, "write_file", _flip_last_byte(tensor_file.write_file)
  )
  with pytest.raises(errors.CheckpointError, match=r"down_proj.* differs"):
    exporting.export_checkpoint(tmp_path / "out", *model)
  assert list(tmp_path.iterdir()) == []


def test_a_block_out_of_place_fails_verification(model, tmp_path, monkeypatch):
  arch, params = model
  # Three rows at once: the embedding is compared in many blocks and a rest.
  monkeypatch.setattr(exporting, "_BLOCK_BYTES", 3 * 4 * arch.hidden_size)
  exporting.export_checkpoint(tmp_path / "out", arch, params)
  write_file = tensor_file.write_file

  def broken(file, tensors, dtype):
    write_file(file, tensors, dtype)
    place = tensor_file.read_header(file)["model.embed_tokens.weight"]
    row = 4 * arch.hidden_size
    content = bytearray(file.read_bytes())
    first, last = place.offset, place.offset + (arch.vocab_size - 1) * row
    assert content[first : first + row] != content[last : last + row]
    content[last : last + row] = content[first : first + row]
    file.write_bytes(bytes(content))

  monkeypatch.setattr(tensor_file, "write_file", broken)
  with pytest.raises(errors.CheckpointError, match=r"embed_tokens\.weight dif"):
    exporting.export_checkpoint(tmp_path / "broken", arch, params)
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_logits_after_a_reload_fail_verification(
  model, tmp_path, monkeypatch
):
  load = importing.load_checkpoint

  def broken(*args, **options):
    arch, params = load(*args, **options)
    return arch, params | {"embedding_VD": params["embedding_VD"] * 1.001}

  monkeypatch.setattr(importing, "load_checkpoint", broken)
  with pytest.raises(errors.CheckpointError, match="logits differ"):
    exporting.export_checkpoint(tmp_path / "out", *model)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("held", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_parameters_are_deleted_only_if_given_away(
  held, stored, model, tmp_path
):
  arch, params = model
  params = jax.tree.map(lambda x: jnp.array(x, held, copy=True), params)
  leaves = jax.tree.leaves(params)
  options = {"param_dtype": stored}
  exporting.export_checkpoint(tmp_path / "kept", arch, params, **options)
  assert not any(leaf.is_deleted() for leaf in leaves)
  exporting.export_checkpoint(
    tmp_path / "donated", arch, params, donate=True, **options
  )
  assert all(leaf.is_deleted() for leaf in leaves)
  assert _content(tmp_path / "kept") == _content(tmp_path / "donated")


def test_a_config_of_another_model_fails_verification(
  model, tmp_path, monkeypatch
):
  write_config = exporting._write_config

  def broken(staging, *args):
    write_config(staging, *args)
    file = staging / "config.json"
    config = json.loads(file.read_text())
    config["rope_parameters"]["rope_theta"] *= 2
    file.write_text(json.dumps(config))

  monkeypatch.setattr(exporting, "_write_config", broken)
  with pytest.raises(errors.CheckpointError, match="reads back as"):
    exporting.export_checkpoint(tmp_path / "out", *model)
  assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_fails_verification(
  model, tokenizer, tmp_path, monkeypatch
):
  save = tokenizer_lib.HfTokenizer.save

  def broken(self, directory):
    save(self, directory)
    file = pathlib.Path(directory) / "chat_template.jinja"
    file.write_text(file.read_text().replace("assistant", "user"))

  monkeypatch.setattr(tokenizer_lib.HfTokenizer, "save", broken)
  with pytest.raises(errors.CheckpointError, match="tokenizer"):
    exporting.export_checkpoint(tmp_path / "out", *model, tokenizer=tokenizer)
  assert list(tmp_path.iterdir()) == []


def test_weights_that_give_no_finite_logits_are_not_exported(model, tmp_path):
  arch, params = model
  broken = params | {
    "embedding_VD": params["embedding_VD"].at[3, 4].set(np.nan)
  }
  with pytest.raises(errors.CheckpointError, match="logits differ by nan"):
    exporting.export_checkpoint(tmp_path / "out", arch, broken)
  assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_keeps_the_earlier_export(
  model, tmp_path, monkeypatch
):
  arch, params = model
  target = tmp_path / "out"
  exporting.export_checkpoint(target, arch, params)
  before = _content(target)
  calls = []

  def full_disk(file, tensors, dtype):
    calls.append(file)
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(tensor_file, "write_file", full_disk)
  with pytest.raises(errors.CheckpointError, match="No space"):
    exporting.export_checkpoint(target, arch, params, overwrite=True)
  assert len(calls) == 1
  assert _content(target) == before
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_rename_puts_the_earlier_export_back(
  model, tmp_path, monkeypatch
):
  arch, params = model
  target = tmp_path / "out"
  exporting.export_checkpoint(target, arch, params)
  before = _content(target)
  rename = pathlib.Path.rename

  def failing(self, other):
    if self.name.endswith(".partial"):
      raise OSError(5, "Input/output error")
    return rename(self, other)

  monkeypatch.setattr(pathlib.Path, "rename", failing)
  with pytest.raises(errors.CheckpointError, match="Input/output"):
    exporting.export_checkpoint(target, arch, params, overwrite=True)
  assert _content(target) == before
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_cleared(model, tmp_path):
  stale = tmp_path / ".out.partial"
  stale.mkdir()
  (stale / "model.safetensors").write_bytes(b"torn")
  exporting.export_checkpoint(tmp_path / "out", *model)
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_arguments_that_can_not_work(model, tokenizer, tmp_path, monkeypatch):
  arch, params = model
  target = tmp_path / "out"
  with pytest.raises(errors.ConfigError, match="float64"):
    exporting.export_checkpoint(target, arch, params, param_dtype="float64")
  with pytest.raises(errors.ConfigError, match="max_shard_bytes=0"):
    exporting.export_checkpoint(target, arch, params, max_shard_bytes=0)
  small = tiny_model.tiny_architecture()
  with pytest.raises(
    errors.CheckpointError, match=f"{tokenizer.vocab_size} ids"
  ):
    exporting.export_checkpoint(
      target, small, tiny_model.tiny_params(small), tokenizer=tokenizer
    )
  with pytest.raises(errors.CheckpointError, match="embedding_VD"):
    exporting.export_checkpoint(target, small, params)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.UserError, match="one process"):
    exporting.export_checkpoint(target, arch, params)
  assert list(tmp_path.iterdir()) == []
