"""What a directory may look like, and every way it can be broken."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.core import errors
from agentflow_jax.hf import exporting, importing, mapping, tensor_file
from agentflow_jax.models import sharding
from agentflow_jax.testing import tiny_model

_FAMILIES = {
  "qwen2_tied": {},
  "qwen2_untied": {"tie_embeddings": False, "num_kv_heads": 1},
  "qwen3_tied": {"family": "qwen3", "head_dim": 12},
  "qwen3_untied": {"family": "qwen3", "tie_embeddings": False},
}


def _export(directory, **options):
  arch = tiny_model.tiny_architecture(**options.pop("arch", {}))
  params = tiny_model.tiny_params(arch)
  exporting.export_checkpoint(directory, arch, params, **options)
  return arch, params


def _assert_equal(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("shards", [1, 6])
@pytest.mark.parametrize("family", _FAMILIES)
def test_import_of_an_export_is_bitwise_equal(family, shards, tmp_path):
  arch, params = _export(
    tmp_path / "out",
    arch=_FAMILIES[family],
    max_shard_bytes=2**30 if shards == 1 else 20_000,
  )
  files = list((tmp_path / "out").glob("*.safetensors"))
  assert len(files) >= shards
  assert (len(files) == 1) == (shards == 1)
  read_arch, read = importing.load_checkpoint(tmp_path / "out")
  assert read_arch == arch
  _assert_equal(params, read)


@pytest.mark.parametrize("family", _FAMILIES)
def test_export_of_an_import_gives_the_same_files(family, tmp_path):
  _export(tmp_path / "a", arch=_FAMILIES[family], max_shard_bytes=30_000)
  arch, params = importing.load_checkpoint(tmp_path / "a")
  exporting.export_checkpoint(
    tmp_path / "b", arch, params, max_shard_bytes=30_000
  )
  names = sorted(path.name for path in (tmp_path / "a").iterdir())
  assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
  for name in names:
    left, right = tmp_path / "a" / name, tmp_path / "b" / name
    assert left.read_bytes() == right.read_bytes(), name


def test_bfloat16_files_keep_their_bits_in_either_param_dtype(tmp_path):
  arch, params = _export(tmp_path / "out", param_dtype="bfloat16")
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  read_arch, read = importing.load_checkpoint(
    tmp_path / "out", dtype="bfloat16", param_dtype="bfloat16", remat="block"
  )
  assert (read_arch.dtype, read_arch.remat) == ("bfloat16", "block")
  _assert_equal(rounded, read)
  _, wide = importing.load_checkpoint(tmp_path / "out")
  _assert_equal(jax.tree.map(lambda x: x.astype(jnp.float32), rounded), wide)
  assert not np.array_equal(params["embedding_VD"], wide["embedding_VD"])


def test_float32_files_are_rounded_like_jax_does(tmp_path):
  _, params = _export(tmp_path / "out")
  _, read = importing.load_checkpoint(tmp_path / "out", param_dtype="bfloat16")
  _assert_equal(jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), read)


def test_a_mesh_gets_each_shard_on_its_device(tmp_path):
  arch, params = _export(tmp_path / "out", max_shard_bytes=20_000)
  mesh = sharding.make_mesh(2, 2, 2)
  _, read = importing.load_checkpoint(tmp_path / "out", mesh=mesh)
  wanted = sharding.param_shardings(arch, mesh)
  jax.tree.map(
    lambda x, s: x.sharding == s or pytest.fail(str(s)), read, wanted
  )
  _assert_equal(params, read)
  gate = read["layers"]["mlp"]["gate_DF"].addressable_shards
  assert len(gate) == 8
  assert {shard.data.shape for shard in gate} == {(2, 16, 32)}


def test_surplus_but_derived_tensors_are_ignored(tmp_path):
  """Qwen3 files hold a copy of the tied head; old ones rotary tables."""
  arch, params = _export(tmp_path / "out")
  _edit(
    tmp_path / "out" / "model.safetensors",
    lambda tensors: tensors.update(
      {
        "lm_head.weight": np.zeros((264, 32), np.float32),
        "model.layers.1.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32),
      }
    ),
  )
  read_arch, read = importing.load_checkpoint(tmp_path / "out")
  assert read_arch == arch
  _assert_equal(params, read)


def _edit(file, change):
  """Rewrites a weight file after `change(dict of its tensors)`."""
  tensors = {
    name: stored.read()
    for name, stored in tensor_file.read_header(file).items()
  }
  change(tensors)
  file.unlink()
  tensor_file.write_file(
    file,
    [
      tensor_file.PendingTensor(name, t.shape, lambda t=t: [t])
      for name, t in tensors.items()
    ],
    np.dtype(np.float32),
  )


def _edit_json(file, **changes):
  value = json.loads(file.read_text()) | changes
  file.write_text(json.dumps(value))


def _first_shard(directory):
  return sorted(directory.glob("model-00001-*.safetensors"))[0]


_DOWN = "model.layers.1.mlp.down_proj.weight"
_INDEX = importing.INDEX_FILE


def _truncate(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-100])


def _truncate_header(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes()[:50])


def _flip(position):
  def flip(directory):
    file = directory / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[position] ^= 0xFF
    file.write_bytes(bytes(content))

  return flip


def _integers(directory):
  file = directory / "model.safetensors"
  content = file.read_bytes()
  head, tail = content.split(b'"dtype":"F32"', 1)
  file.write_bytes(head + b'"dtype":"I32"' + tail)


def _index_to(file):
  def change(directory):
    index = json.loads((directory / _INDEX).read_text())
    index["weight_map"][_DOWN] = file
    (directory / _INDEX).write_text(json.dumps(index))

  return change


# name -> (exported in shards, how to break it, what the message must name)
_BROKEN = {
  "truncated data": (False, _truncate, ["model.safetensors"]),
  "truncated header": (False, _truncate_header, ["model.safetensors"]),
  "flipped header length": (False, _flip(2), ["model.safetensors"]),
  "flipped header text": (False, _flip(9), ["model.safetensors"]),
  "empty file": (
    False,
    lambda d: (d / "model.safetensors").write_bytes(b""),
    ["model.safetensors"],
  ),
  "integer tensor": (False, _integers, ["model.safetensors", "I32"]),
  "missing tensor": (
    False,
    lambda d: _edit(d / "model.safetensors", lambda t: t.pop(_DOWN)),
    [_DOWN, "missing"],
  ),
  "missing layer": (
    False,
    lambda d: _edit_json(d / "config.json", num_hidden_layers=3),
    ["model.layers.2.", "missing"],
  ),
  "extra tensor": (
    False,
    lambda d: _edit(
      d / "model.safetensors", lambda t: t.update(surplus=t[_DOWN])
    ),
    ["surplus", "model.safetensors"],
  ),
  "extra layer": (
    False,
    lambda d: _edit_json(d / "config.json", num_hidden_layers=1),
    ["model.layers.1.", "model.safetensors"],
  ),
  "untied head": (
    False,
    lambda d: _edit_json(d / "config.json", tie_word_embeddings=False),
    ["lm_head.weight", "missing"],
  ),
  "wrong shape": (
    False,
    lambda d: _edit(
      d / "model.safetensors", lambda t: t.update({_DOWN: t[_DOWN].T})
    ),
    [_DOWN, "[64, 32]", "[32, 64]", "model.safetensors"],
  ),
  "no config": (
    False,
    lambda d: (d / "config.json").unlink(),
    ["config.json", "no such file"],
  ),
  "config not JSON": (
    False,
    lambda d: (d / "config.json").write_text('{"model_type": "qw'),
    ["config.json", "JSON"],
  ),
  "config a list": (
    False,
    lambda d: (d / "config.json").write_text("[]"),
    ["config.json", "object"],
  ),
  "config not UTF-8": (
    False,
    lambda d: (d / "config.json").write_bytes(b"\xff\xfe{}"),
    ["config.json"],
  ),
  "sliding window": (
    False,
    lambda d: _edit_json(
      d / "config.json", use_sliding_window=True, sliding_window=128
    ),
    ["sliding"],
  ),
  "other family": (
    False,
    lambda d: _edit_json(d / "config.json", model_type="llama"),
    ["llama", "qwen2"],
  ),
  "no weights": (
    False,
    lambda d: (d / "model.safetensors").unlink(),
    ["model.safetensors", _INDEX],
  ),
  "missing shard": (
    True,
    lambda d: _first_shard(d).unlink(),
    ["model-00001-of-", "no such file"],
  ),
  "truncated shard": (
    True,
    lambda d: _first_shard(d).write_bytes(_first_shard(d).read_bytes()[:-1]),
    ["model-00001-of-"],
  ),
  "index names an absent file": (
    True,
    _index_to("model-00099-of-00099.safetensors"),
    ["model-00099-of-00099.safetensors"],
  ),
  "index names the wrong file": (
    True,
    _index_to("model-00001-of-00006.safetensors"),
    [_DOWN, "model-00001-of-00006.safetensors"],
  ),
  "index leaves the directory": (
    True,
    _index_to("../model.safetensors"),
    ["../model.safetensors"],
  ),
  "index without a map": (
    True,
    lambda d: (d / _INDEX).write_text("{}"),
    [_INDEX, "weight_map"],
  ),
  "index not JSON": (
    True,
    lambda d: (d / _INDEX).write_text("{"),
    [_INDEX, "JSON"],
  ),
}


@pytest.mark.parametrize("name", _BROKEN)
def test_a_broken_directory_is_one_line_that_names_the_culprit(name, tmp_path):
  sharded, damage, needles = _BROKEN[name]
  _export(tmp_path / "out", max_shard_bytes=20_000 if sharded else 2**30)
  if sharded:
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 6
  damage(tmp_path / "out")
  with pytest.raises(errors.CheckpointError) as caught:
    importing.load_checkpoint(tmp_path / "out")
  message = str(caught.value)
  assert "\n" not in message
  for needle in needles:
    assert needle in message


def test_a_file_that_shrinks_after_the_header_was_read_is_caught(tmp_path):
  _export(tmp_path / "out")
  file = tmp_path / "out" / "model.safetensors"
  stored = tensor_file.read_header(file)["model.norm.weight"]
  file.write_bytes(file.read_bytes()[: stored.offset + 8])
  with pytest.raises(errors.CheckpointError, match="model.norm.weight"):
    stored.read()


def test_unknown_param_dtype_is_a_config_error(tmp_path):
  with pytest.raises(errors.ConfigError, match="float64"):
    importing.load_checkpoint(tmp_path, param_dtype="float64")


def test_every_parameter_has_a_row_and_every_layout_inverts():
  for overrides in _FAMILIES.values():
    arch = tiny_model.tiny_architecture(**overrides)
    slots = mapping.slots(arch)
    params = tiny_model.tiny_params(arch)
    assert len(slots) == len(jax.tree.leaves(params))
    names = [name for slot in slots for name in slot.hf_names()]
    assert len(set(names)) == len(names)
    for slot in slots:
      array = np.asarray(mapping.get(params, slot.row.path))
      one = array[0] if slot.row.stacked else array
      stored = slot.row.to_hf(one)
      assert stored.shape == slot.hf_shape
      np.testing.assert_array_equal(
        slot.row.from_hf(stored, one.shape), one, strict=True
      )


_PEAK_SCRIPT = textwrap.dedent(r"""
  import pathlib, re, sys
  import jax
  from agentflow_jax.hf import importing
  from agentflow_jax.testing import tiny_model

  def resident_bytes(kind):
    # Not getrusage: its maximum is inherited from the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(kind + r":\s+(\d+) kB", status)[1])

  jax.block_until_ready(tiny_model.tiny_params(tiny_model.tiny_architecture()))
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak
  before = resident_bytes("VmRSS")
  arch, params = importing.load_checkpoint(sys.argv[1])
  jax.block_until_ready(params)
  weights = sum(x.nbytes for x in jax.tree.leaves(params))
  print((resident_bytes("VmHWM") - before) / weights, weights)
""")


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_peak_host_memory_is_at_most_1_3_times_the_weights(stored, tmp_path):
  arch = tiny_model.tiny_architecture(
    vocab_size=16384,
    hidden_size=640,
    num_layers=10,
    num_heads=10,
    head_dim=64,
    intermediate_size=1792,
  )
  _export_large(tmp_path / "out", arch, stored)
  done = subprocess.run(
    [sys.executable, "-c", _PEAK_SCRIPT, str(tmp_path / "out")],
    capture_output=True,
    text=True,
    check=True,
  )
  ratio, weights = map(float, done.stdout.split())
  assert weights > 200e6
  assert 0.9 < ratio <= 1.3, f"{ratio:.2f} x {weights / 1e6:.0f} MB"


def _export_large(directory, arch, stored):
  params = sharding.init_sharded(
    arch, jax.random.key(0), sharding.make_mesh(devices=jax.devices()[:1])
  )
  exporting.export_checkpoint(directory, arch, params, param_dtype=stored)
