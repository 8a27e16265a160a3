"""Imported files against a float64 numpy decoder that reads their tensors.

The oracle is written from the architecture's description with explicit loops
over heads and knows nothing of our parameter layout, so a swapped axis, a
forgotten bias or a wrong rotation shows without torch.

Axes: T token, D model, V vocabulary, H head dim.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.hf import importing, tensor_file
from agentflow_jax.models import attention, transformer

_BASE = {
  "vocab_size": 50,
  "hidden_size": 24,
  "num_hidden_layers": 2,
  "intermediate_size": 40,
  "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5,
}
_CONFIGS = {
  "qwen2_tied_gqa2": _BASE
  | {
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
  },
  "qwen2_untied_mqa": _BASE
  | {
    "model_type": "qwen2",
    "num_attention_heads": 6,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
  },
  "qwen3_tied_wide_heads": _BASE
  | {
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "tie_word_embeddings": True,
  },
  "qwen3_untied_mha": _BASE
  | {
    "model_type": "qwen3",
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
  },
}


def _random_tensors(config):
  """Every tensor of such a checkpoint, by its published name."""
  rng = np.random.default_rng(0)
  d, f = config["hidden_size"], config["intermediate_size"]
  heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
  h = config.get("head_dim", d // heads)
  shapes = {
    "model.embed_tokens.weight": (config["vocab_size"], d),
    "model.norm.weight": (d,),
  }
  if not config.get("tie_word_embeddings"):
    shapes["lm_head.weight"] = (config["vocab_size"], d)
  for layer in range(config["num_hidden_layers"]):
    prefix = f"model.layers.{layer}."
    shapes |= {
      prefix + "input_layernorm.weight": (d,),
      prefix + "post_attention_layernorm.weight": (d,),
      prefix + "self_attn.q_proj.weight": (heads * h, d),
      prefix + "self_attn.k_proj.weight": (kv_heads * h, d),
      prefix + "self_attn.v_proj.weight": (kv_heads * h, d),
      prefix + "self_attn.o_proj.weight": (d, heads * h),
      prefix + "mlp.gate_proj.weight": (f, d),
      prefix + "mlp.up_proj.weight": (f, d),
      prefix + "mlp.down_proj.weight": (d, f),
    }
    if config["model_type"] == "qwen2":
      shapes |= {
        prefix + "self_attn.q_proj.bias": (heads * h,),
        prefix + "self_attn.k_proj.bias": (kv_heads * h,),
        prefix + "self_attn.v_proj.bias": (kv_heads * h,),
      }
    else:
      shapes |= {
        prefix + "self_attn.q_norm.weight": (h,),
        prefix + "self_attn.k_norm.weight": (h,),
      }
  tensors = {
    name: rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
    for name, shape in shapes.items()
  }
  for name in tensors:
    if "norm" in name:
      tensors[name] += 1
  return tensors


def _norm(x, weight, eps):
  return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def _rotate(x_TH, theta):
  half = x_TH.shape[1] // 2
  angle = np.arange(len(x_TH))[:, None] * theta ** (-np.arange(half) / half)
  first, second = x_TH[:, :half], x_TH[:, half:]
  return np.concatenate(
    [
      first * np.cos(angle) - second * np.sin(angle),
      second * np.cos(angle) + first * np.sin(angle),
    ],
    axis=1,
  )


def _attention(x_TD, weights, config, theta):
  heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
  eps = config["rms_norm_eps"]
  h = config.get("head_dim", config["hidden_size"] // heads)

  def head(kind, index):
    part = slice(index * h, (index + 1) * h)
    x = x_TD @ weights[f"self_attn.{kind}_proj.weight"][part].T
    if f"self_attn.{kind}_proj.bias" in weights:
      x = x + weights[f"self_attn.{kind}_proj.bias"][part]
    if f"self_attn.{kind}_norm.weight" in weights:
      x = _norm(x, weights[f"self_attn.{kind}_norm.weight"], eps)
    return x

  outputs = []
  for index in range(heads):
    shared = index * kv_heads // heads
    q = _rotate(head("q", index), theta)
    k = _rotate(head("k", shared), theta)
    scores = q @ k.T / np.sqrt(h)
    scores[np.triu_indices(len(x_TD), 1)] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    outputs.append(scores / scores.sum(-1, keepdims=True) @ head("v", shared))
  return np.concatenate(outputs, 1) @ weights["self_attn.o_proj.weight"].T


def _oracle_logits(tensors, config, tokens_T):
  tensors = {name: t.astype(np.float64) for name, t in tensors.items()}
  eps = config["rms_norm_eps"]
  rope = config.get("rope_parameters", config)
  theta = rope.get("rope_theta", 10_000.0)
  x_TD = tensors["model.embed_tokens.weight"][tokens_T]
  for layer in range(config["num_hidden_layers"]):
    prefix = f"model.layers.{layer}."
    weights = {
      name.removeprefix(prefix): t
      for name, t in tensors.items()
      if name.startswith(prefix)
    }
    normed = _norm(x_TD, weights["input_layernorm.weight"], eps)
    x_TD = x_TD + _attention(normed, weights, config, theta)
    normed = _norm(x_TD, weights["post_attention_layernorm.weight"], eps)
    gate = normed @ weights["mlp.gate_proj.weight"].T
    up = normed @ weights["mlp.up_proj.weight"].T
    gate = gate / (1 + np.exp(-gate))
    x_TD = x_TD + gate * up @ weights["mlp.down_proj.weight"].T
  head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
  return _norm(x_TD, tensors["model.norm.weight"], eps) @ head.T


def _write(directory, config, tensors):
  (directory / "config.json").write_text(json.dumps(config))
  tensor_file.write_file(
    directory / "model.safetensors",
    [
      tensor_file.PendingTensor(name, t.shape, lambda t=t: [t])
      for name, t in tensors.items()
    ],
    np.dtype(np.float32),
  )


@pytest.mark.parametrize("name", _CONFIGS)
def test_imported_logits_equal_a_float64_decoder(name, tmp_path):
  config = _CONFIGS[name]
  tensors = _random_tensors(config)
  _write(tmp_path, config, tensors)
  tokens_T = np.random.default_rng(1).integers(50, size=20)
  want_TV = _oracle_logits(tensors, config, tokens_T)

  arch, params = importing.load_checkpoint(tmp_path)
  hidden_BTD, _ = jax.jit(transformer.forward, static_argnums=(0, 4))(
    arch,
    params,
    jnp.asarray(tokens_T)[None],
    jnp.arange(20)[None],
    attention.tree_attend(jnp.full((1, 20), 20)),
  )
  got_TV = transformer.project_logits(arch, params, hidden_BTD)[0]

  assert want_TV.std() > 0.5  # a flat oracle would prove nothing
  np.testing.assert_allclose(got_TV, want_TV, atol=1e-4, rtol=0)
