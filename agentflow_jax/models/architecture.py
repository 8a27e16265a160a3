"""Architecture: the shape of a network, read from a Hugging Face config."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import errors

_FAMILIES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """Sizes of one dense decoder; hashable, so it can be a static jit argument.

  Example: `presets.ARCHITECTURES["bench_tiny"]` has 6,755,840 parameters.
  """

  family: str = "qwen2"  # qwen2 (q/k/v bias) | qwen3 (q/k norm)
  vocab_size: int
  hidden_size: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  intermediate_size: int
  max_positions: int
  rope_theta: float = 1_000_000.0
  rms_norm_eps: float = 1e-6
  tie_embeddings: bool = True
  qkv_bias: bool = True
  qk_norm: bool = False
  dtype: str = "float32"  # computation; parameters keep their own
  remat: str = "none"  # none | block: what the backward pass recomputes

  def __post_init__(self):
    if self.family not in _FAMILIES:
      raise errors.ConfigError(
        f"model family {self.family!r} is unknown; known: {sorted(_FAMILIES)}"
      )
    if self.num_heads % self.num_kv_heads:
      raise errors.ConfigError(
        f"num_heads={self.num_heads} is not a multiple of "
        f"num_kv_heads={self.num_kv_heads}"
      )
    if self.head_dim % 2:
      raise errors.ConfigError(f"head_dim={self.head_dim} must be even")

  def parameter_count(self) -> int:
    d, h = self.hidden_size, self.head_dim
    q, kv = self.num_heads * h, self.num_kv_heads * h
    layer = d * (q + 2 * kv) + q * d + 3 * d * self.intermediate_size + 2 * d
    layer += (q + 2 * kv) * self.qkv_bias + 2 * h * self.qk_norm
    embeddings = self.vocab_size * d * (1 if self.tie_embeddings else 2)
    return embeddings + self.num_layers * layer + d


def from_hf_config(
  config: Mapping[str, Any], *, dtype: str = "float32", remat: str = "none"
) -> Architecture:
  """Reads a parsed `config.json`, in the form of transformers 4 or 5.

  Raises:
    CheckpointError: not a model we compute exactly (other family, sliding
      window in use, scaled RoPE, unknown activation, missing key).
  """
  family = config.get("model_type", "")
  if family not in _FAMILIES:
    raise errors.CheckpointError(
      f"config.json has model_type {family!r}; supported: {sorted(_FAMILIES)}"
    )
  if config.get("use_sliding_window") and config.get("sliding_window"):
    raise errors.CheckpointError(
      "config.json uses a sliding window (use_sliding_window=true), which is "
      "not supported; set it to false if the model was trained without"
    )
  if config.get("hidden_act", "silu") != "silu":
    raise errors.CheckpointError(
      f"config.json has hidden_act {config['hidden_act']!r}; supported: 'silu'"
    )
  try:
    heads = config["num_attention_heads"]
    return Architecture(
      family=family,
      vocab_size=config["vocab_size"],
      hidden_size=config["hidden_size"],
      num_layers=config["num_hidden_layers"],
      num_heads=heads,
      num_kv_heads=config.get("num_key_value_heads") or heads,
      head_dim=config.get("head_dim") or config["hidden_size"] // heads,
      intermediate_size=config["intermediate_size"],
      max_positions=config.get("max_position_embeddings", 32768),
      rope_theta=_rope_theta(config),
      rms_norm_eps=config.get("rms_norm_eps", 1e-6),
      tie_embeddings=config.get("tie_word_embeddings", False),
      qkv_bias=config.get("attention_bias", family == "qwen2"),
      qk_norm=family == "qwen3",
      dtype=dtype,
      remat=remat,
    )
  except KeyError as error:
    raise errors.CheckpointError(f"config.json lacks {error}") from error


def _rope_theta(config: Mapping[str, Any]) -> float:
  """`rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (4)."""
  rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind != "default":
    raise errors.CheckpointError(
      f"config.json has RoPE type {kind!r}; supported: 'default'"
    )
  return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def to_hf_config(arch: Architecture, *, param_dtype: str) -> dict[str, Any]:
  """The `config.json` of an export, readable by transformers 4 and 5."""
  return {
    "architectures": [_FAMILIES[arch.family]],
    "model_type": arch.family,
    "vocab_size": arch.vocab_size,
    "hidden_size": arch.hidden_size,
    "num_hidden_layers": arch.num_layers,
    "num_attention_heads": arch.num_heads,
    "num_key_value_heads": arch.num_kv_heads,
    "head_dim": arch.head_dim,
    "intermediate_size": arch.intermediate_size,
    "max_position_embeddings": arch.max_positions,
    "rope_theta": arch.rope_theta,
    "rope_parameters": {
      "rope_theta": arch.rope_theta,
      "rope_type": "default",
    },
    "rms_norm_eps": arch.rms_norm_eps,
    "tie_word_embeddings": arch.tie_embeddings,
    "attention_bias": arch.qkv_bias,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "use_cache": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "dtype": param_dtype,
    "torch_dtype": param_dtype,
  }
