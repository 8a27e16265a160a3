"""Reading config.json in both of its forms, and refusing what we can not do."""

import json

import jax
import pytest

from agentflow_jax.core import errors
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import presets, transformer
from agentflow_jax.testing import tiny_model

# As published for Qwen2.5-7B-Instruct (transformers 4 form).
_VERSION_4 = {
  "model_type": "qwen2",
  "vocab_size": 152064,
  "hidden_size": 3584,
  "num_hidden_layers": 28,
  "num_attention_heads": 28,
  "num_key_value_heads": 4,
  "intermediate_size": 18944,
  "max_position_embeddings": 32768,
  "max_window_layers": 28,
  "rope_theta": 1000000.0,
  "rms_norm_eps": 1e-06,
  "sliding_window": 131072,
  "use_sliding_window": False,
  "tie_word_embeddings": False,
  "hidden_act": "silu",
}


def test_version_4_config_is_the_7b_preset():
  read = architecture_lib.from_hf_config(_VERSION_4)
  assert read == presets.ARCHITECTURES["qwen2_5_7b"]


def test_version_5_config_keeps_rope_in_rope_parameters():
  config = _VERSION_4 | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    "layer_types": ["full_attention"] * 28,
  }
  del config["rope_theta"]
  assert architecture_lib.from_hf_config(config).rope_theta == 5e5


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_our_config_reads_back_as_the_same_architecture(family, tied):
  arch = tiny_model.tiny_architecture(
    family=family, tie_embeddings=tied, head_dim=12, rope_theta=500.0
  )
  text = json.dumps(architecture_lib.to_hf_config(arch, param_dtype="float32"))
  assert architecture_lib.from_hf_config(json.loads(text)) == arch


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_absent_keys_mean_what_transformers_says(family):
  transformers = pytest.importorskip("transformers")
  config = dict(_VERSION_4, model_type=family)
  for key in ("rope_theta", "tie_word_embeddings", "rms_norm_eps"):
    del config[key]
  theirs = getattr(transformers, f"{family.title()}Config")(**config)
  ours = architecture_lib.from_hf_config(config)
  written = architecture_lib.from_hf_config(theirs.to_dict())
  assert ours == written


_REFUSED = {
  "family": ({"model_type": "llama"}, "llama"),
  "no family": ({"model_type": None}, "model_type"),
  "window": ({"use_sliding_window": True}, "sliding window"),
  "window by layer": (
    {"layer_types": ["full_attention", "sliding_attention"]},
    "sliding window",
  ),
  "rope scaling 4": (
    {"rope_scaling": {"type": "yarn", "factor": 4.0}},
    "yarn",
  ),
  "rope scaling 5": (
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6}},
    "linear",
  ),
  "partial rope": (
    {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}},
    "partial_rotary_factor",
  ),
  "qwen3 bias": (
    {"model_type": "qwen3", "attention_bias": True},
    "attention_bias",
  ),
  "activation": ({"hidden_act": "gelu"}, "gelu"),
  "missing": ({"hidden_size": None}, "lacks hidden_size"),
  "text": ({"num_hidden_layers": "28"}, "num_hidden_layers='28'"),
  "float": ({"hidden_size": 3584.5}, "hidden_size"),
  "bool": ({"vocab_size": True}, "vocab_size"),
  "zero": ({"num_attention_heads": 0}, "positive"),
  "negative": ({"intermediate_size": -1}, "positive"),
  "heads": ({"num_key_value_heads": 3}, "multiple"),
  "odd head": ({"head_dim": 127}, "even"),
  "rope not a dict": ({"rope_parameters": [1]}, "RoPE"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_we_can_not_compute_is_refused(name):
  changes, needle = _REFUSED[name]
  with pytest.raises(errors.CheckpointError, match=needle) as caught:
    architecture_lib.from_hf_config(_VERSION_4 | changes)
  assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
  ("field", "value"),
  [("family", "gpt2"), ("dtype", "float16"), ("remat", "full")],
)
def test_unknown_choices_name_the_known_ones(field, value):
  with pytest.raises(errors.ConfigError, match=f"{field}='{value}'.*known: "):
    tiny_model.tiny_architecture(**{field: value})


def test_published_parameter_counts():
  """Counts of the published safetensors, the tied head counted once."""
  counts = {
    "bench_tiny": 6_755_840,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
  }
  for name, count in counts.items():
    assert presets.ARCHITECTURES[name].parameter_count() == count, name


@pytest.mark.parametrize("name", presets.ARCHITECTURES)
def test_parameter_count_is_that_of_the_network(name):
  arch = presets.ARCHITECTURES[name]
  leaves = jax.tree.leaves(transformer.param_shapes(arch))
  assert sum(leaf.size for leaf in leaves) == arch.parameter_count()
