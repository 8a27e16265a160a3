"""Adapters in PEFT's files mean what they mean here."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from agentflow_jax.core import errors
from agentflow_jax.hf import exporting, mapping, peft_export, tensor_file
from agentflow_jax.models import attention, lora, transformer
from agentflow_jax.testing import tiny_model

_LORA = lora.Lora(rank=3, alpha=6.0)
_ARCH = tiny_model.tiny_architecture(vocab_size=300, lora=_LORA)
_BASE = tiny_model.tiny_params(_ARCH.base)
_ADAPTERS = lora.select(tiny_model.tiny_params(_ARCH, 1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """base/ (Hugging Face) and adapter/ (PEFT)."""
  path = tmp_path_factory.mktemp("exported")
  exporting.export_checkpoint(path / "base", _ARCH.base, _BASE)
  peft_export.export_adapters(
    path / "adapter", _ARCH, _ADAPTERS, base=str(path / "base")
  )
  return path


def _stored(params):
  """Every tensor as a Hugging Face file of `params` holds it."""
  found = {}
  for slot in mapping.slots(_ARCH.base):
    array = np.asarray(mapping.get(params, slot.row.path))
    layers = array if slot.row.stacked else [array]
    for name, layer in zip(slot.hf_names(), layers, strict=True):
      found[name] = slot.row.to_hf(layer)
  return found


def test_the_tensors_applied_by_hand_give_the_merged_weights(exported):
  """W + alpha / r * B A in torch's orientation, with PEFT's names."""
  base = safetensors.numpy.load_file(exported / "base" / "model.safetensors")
  file = exported / "adapter" / "adapter_model.safetensors"
  found = safetensors.numpy.load_file(file)
  expected = _stored(lora.merged(_LORA, _BASE, _ADAPTERS))
  assert len(found) == 2 * 7 * _ARCH.num_layers
  prefix = "base_model.model.model.layers.1.self_attn.q_proj"
  assert found[f"{prefix}.lora_A.weight"].shape == (3, 32)
  assert found[f"{prefix}.lora_B.weight"].shape == (32, 3)
  adapted = 0
  for name, weight in base.items():
    stem = "base_model.model." + name.removesuffix(".weight")
    if f"{stem}.lora_A.weight" in found:
      adapted += 1
      a, b = (found.pop(f"{stem}.lora_{x}.weight") for x in "AB")
      weight = weight + 6.0 / 3 * b.astype(np.float64) @ a
    np.testing.assert_allclose(weight, expected[name], rtol=1e-5, atol=1e-6)
  assert found == {} and adapted == 7 * _ARCH.num_layers


def test_the_config_is_what_peft_reads(exported):
  text = (exported / "adapter" / "adapter_config.json").read_text("utf-8")
  config = json.loads(text)
  assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
  assert (config["r"], config["lora_alpha"]) == (3, 6.0)
  assert config["base_model_name_or_path"] == str(exported / "base")
  assert config["target_modules"] == [
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
  ]


def test_peft_computes_our_logits(exported):
  peft = pytest.importorskip("peft", reason="peft is not installed")
  torch = pytest.importorskip("torch", reason="torch is not installed")
  import transformers

  model = peft.PeftModel.from_pretrained(
    transformers.AutoModelForCausalLM.from_pretrained(exported / "base"),
    exported / "adapter",
  )
  tokens = np.random.default_rng(0).integers(0, _ARCH.vocab_size, (2, 12))
  with torch.no_grad():
    found = model(torch.tensor(tokens)).logits.numpy()
  length = tokens.shape[1]
  whole = lora.combine(_BASE, _ADAPTERS)

  @jax.jit
  def logits(whole):
    hidden, _ = transformer.forward(
      _ARCH,
      whole,
      jnp.asarray(tokens, jnp.int32),
      jnp.broadcast_to(jnp.arange(length), tokens.shape),
      attention.tree_attend(jnp.full(tokens.shape, length)),
    )
    return transformer.project_logits(_ARCH, whole, hidden)

  np.testing.assert_allclose(found, logits(whole), rtol=1e-4, atol=1e-4)


def test_a_whole_model_has_no_adapter_to_export(tmp_path):
  with pytest.raises(errors.ConfigError, match="no adapters"):
    peft_export.export_adapters(
      tmp_path / "a", _ARCH.base, _BASE, base="somewhere"
    )
  assert not (tmp_path / "a").exists()


def test_an_earlier_export_stays_unless_it_may_go(exported, tmp_path):
  out = tmp_path / "out"
  arguments = (out, _ARCH, _ADAPTERS)
  peft_export.export_adapters(*arguments, base="first")
  with pytest.raises(errors.CheckpointError, match="earlier export"):
    peft_export.export_adapters(*arguments, base="second")
  arch = dataclasses.replace(
    _ARCH, lora=dataclasses.replace(_LORA, targets=("up_proj",))
  )
  peft_export.export_adapters(
    out, arch, _ADAPTERS, base="second", overwrite=True
  )
  header = tensor_file.read_header(out / "adapter_model.safetensors")
  assert len(header) == 2 * arch.num_layers
