"""Architecture: the shape of a network, read from a Hugging Face config."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import errors
from agentflow_jax.models import lora as lora_lib
from agentflow_jax.models import remat as remat_lib

_FAMILIES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """Sizes of one dense decoder; hashable, so it can be a static jit argument.

  Example: `presets.ARCHITECTURES["bench_tiny"]` has 6,755,840 parameters.

  Raises:
    ConfigError: sizes that no network can have.
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
  dtype: str = "float32"  # computation; parameters keep their own
  remat: str = "none"  # none | attention | block | offload (remat.py)
  lora: lora_lib.Lora | None = None  # adapters beside the weights

  def __post_init__(self):
    for field, known in (
      ("family", tuple(_FAMILIES)),
      ("dtype", _DTYPES),
      ("remat", remat_lib.MODES),
    ):
      if getattr(self, field) not in known:
        raise errors.ConfigError(
          f"{field}={getattr(self, field)!r} is unknown; known: "
          f"{', '.join(known)}"
        )
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type in (int, float) and not value > 0:
        raise errors.ConfigError(f"{field.name}={value} must be positive")
    if self.num_heads % self.num_kv_heads:
      raise errors.ConfigError(
        f"num_heads={self.num_heads} is not a multiple of "
        f"num_kv_heads={self.num_kv_heads}"
      )
    if self.head_dim % 2:
      raise errors.ConfigError(f"head_dim={self.head_dim} must be even")

  @property
  def qkv_bias(self) -> bool:
    """Whether the q, k and v projections add a bias."""
    return self.family == "qwen2"

  @property
  def qk_norm(self) -> bool:
    """Whether q and k are normalised per head before the rotation."""
    return self.family == "qwen3"

  @property
  def base(self) -> "Architecture":
    """The same network without adapters."""
    return dataclasses.replace(self, lora=None)

  def parameter_count(self) -> int:
    """Of the base."""
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
      window in use, scaled RoPE, biases of Qwen3, unknown activation), or a
      value that is missing or of the wrong type.
  """
  _refuse_unsupported(config)
  family = config["model_type"]
  heads = _number(config, "num_attention_heads", int)
  hidden = _number(config, "hidden_size", int)
  # What transformers' config classes do when the key is absent.
  head_dim = 128 if family == "qwen3" else hidden // max(heads, 1)
  try:
    return Architecture(
      family=family,
      vocab_size=_number(config, "vocab_size", int),
      hidden_size=hidden,
      num_layers=_number(config, "num_hidden_layers", int),
      num_heads=heads,
      num_kv_heads=_number(config, "num_key_value_heads", int, heads),
      head_dim=_number(config, "head_dim", int, head_dim),
      intermediate_size=_number(config, "intermediate_size", int),
      max_positions=_number(config, "max_position_embeddings", int, 32768),
      rope_theta=_rope_theta(config),
      rms_norm_eps=_number(config, "rms_norm_eps", float, 1e-6),
      tie_embeddings=bool(config.get("tie_word_embeddings", False)),
      dtype=dtype,
      remat=remat,
    )
  except errors.ConfigError as error:
    raise errors.CheckpointError(f"config.json: {error}") from error


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
  family = config.get("model_type")
  if family not in _FAMILIES:
    raise errors.CheckpointError(
      f"config.json has model_type {family!r}; supported: "
      f"{', '.join(_FAMILIES)}"
    )
  slides = config.get("use_sliding_window") and config.get("sliding_window")
  layer_types = config.get("layer_types") or ()
  if slides or any(kind != "full_attention" for kind in layer_types):
    raise errors.CheckpointError(
      "config.json uses a sliding window (use_sliding_window or layer_types), "
      "which is not supported; switch it off if the model was trained without"
    )
  if family == "qwen3" and config.get("attention_bias"):
    raise errors.CheckpointError(
      "config.json has attention_bias=true, which no released Qwen3 has; "
      "supported: false"
    )
  if config.get("hidden_act", "silu") != "silu":
    raise errors.CheckpointError(
      f"config.json has hidden_act {config['hidden_act']!r}; supported: 'silu'"
    )


def _number(
  config: Mapping[str, Any],
  key: str,
  kind: type,
  default: float | None = None,
) -> Any:
  """The value of `key`; null and absent mean `default`."""
  value = config.get(key)
  if value is None:
    value = default
  if value is None:
    raise errors.CheckpointError(f"config.json lacks {key}")
  allowed = (int, float) if kind is float else (int,)
  if isinstance(value, bool) or not isinstance(value, allowed):
    raise errors.CheckpointError(
      f"config.json has {key}={value!r}, which is not a number"
    )
  return kind(value)


def _rope_theta(config: Mapping[str, Any]) -> float:
  """`rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (4)."""
  rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
  if not isinstance(rope, Mapping):
    raise errors.CheckpointError(f"config.json has RoPE settings {rope!r}")
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
    raise errors.CheckpointError(
      f"config.json has RoPE settings {dict(rope)!r}; supported: rope_type "
      "'default' over the whole head"
    )
  return _number({**config, **rope}, "rope_theta", float, 10_000.0)


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
