"""Low-rank adapters: which parameters they are, and how they act on a base.

An adapter of weight `q_DNH` is the pair `q_lora_a_DR`, `q_lora_b_RNH` beside it
in the same nested dict; the weight then acts as W + alpha / rank * A B (LoRA,
Hu et al. 2021, arXiv 2106.09685). A starts at random and B at zero, so a fresh
adapter changes nothing.

The network applies adapters beside their weights (transformer.py), so that
training needs no gradient and no second copy of a weight. `merged` computes the
sum once, for whoever wants a model without adapters.

Axes: L layer, R rank; the others as in transformer.py.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from agentflow_jax.core import errors, lora_config

# Hugging Face projection -> (module of a layer, weight, its input axes).
_TARGETS = {
  "q_proj": ("attention", "q_DNH", 1),
  "k_proj": ("attention", "k_DKH", 1),
  "v_proj": ("attention", "v_DKH", 1),
  "o_proj": ("attention", "o_NHD", 2),
  "gate_proj": ("mlp", "gate_DF", 1),
  "up_proj": ("mlp", "up_DF", 1),
  "down_proj": ("mlp", "down_FD", 1),
}
_MARK = "_lora_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """What is adapted and how much; hashable, part of an Architecture.

  Example: `Lora(rank=8, alpha=16.0, targets=("q_proj", "v_proj"))`.

  Raises:
    ConfigError: a rank below 1, or a target that does not exist.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] = lora_config.TARGETS

  def __post_init__(self):
    unknown = set(self.targets) - set(_TARGETS)
    if self.rank < 1 or unknown or not self.targets:
      raise errors.ConfigError(
        f"rank={self.rank} must be at least 1 and the targets "
        f"{list(self.targets)} some of {', '.join(_TARGETS)}"
      )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank

  def adapters(self) -> "tuple[Adapter, ...]":
    """In the order of the table."""
    return tuple(
      Adapter(target, *_TARGETS[target])
      for target in _TARGETS
      if target in self.targets
    )

  def adapter_of(self, weight: str) -> "Adapter | None":
    """None if the weight has no adapter."""
    found = (a for a in self.adapters() if a.weight == weight)
    return next(found, None)


@dataclasses.dataclass(frozen=True)
class Adapter:
  """The names around one adapted weight.

  Example: `Adapter("o_proj", "attention", "o_NHD", 2)` has a
  "o_lora_a_NHR" and b "o_lora_b_RD".
  """

  target: str
  module: str
  weight: str
  inputs: int

  @property
  def a(self) -> str:
    return f"{self._stem}{_MARK}a_{self._axes[: self.inputs]}R"

  @property
  def b(self) -> str:
    return f"{self._stem}{_MARK}b_R{self._axes[self.inputs :]}"

  @property
  def product(self) -> str:
    """The einsum of A and B over all layers: "LNHR,LRD->LNHD"."""
    ins, outs = self._axes[: self.inputs], self._axes[self.inputs :]
    return f"L{ins}R,LR{outs}->L{ins}{outs}"

  @property
  def _stem(self) -> str:
    return self.weight.rpartition("_")[0]

  @property
  def _axes(self) -> str:
    return self.weight.rpartition("_")[2]


def select(params: dict[str, Any]) -> dict[str, Any]:
  """The adapters alone, nested as they were."""
  found = {}
  for name, value in params.items():
    if isinstance(value, dict):
      inside = select(value)
      if inside:
        found[name] = inside
    elif _MARK in name:
      found[name] = value
  return found


def combine(base: dict[str, Any], adapters: dict[str, Any]) -> dict[str, Any]:
  """Both as one tree, for a network whose architecture has adapters.

  No array is copied. A base must not hold adapters already.
  """
  whole = dict(base)
  for name, value in adapters.items():
    if isinstance(value, dict):
      whole[name] = combine(base[name], value)
    else:
      whole[name] = value
  return whole


def merged(
  lora: Lora, base: dict[str, Any], adapters: dict[str, Any]
) -> dict[str, Any]:
  """A model without adapters that computes what base and adapters compute.

  Args:
    lora: of `adapters`.
    base: parameters without adapters, of any float type.
    adapters: as `select` returns them.

  Returns:
    The tree of `base`; adapted weights are float32 sums, the others as given.
  """
  layers = dict(base["layers"])
  for adapter in lora.adapters():
    pair = adapters["layers"][adapter.module]
    module = dict(layers[adapter.module])
    change = jnp.einsum(
      adapter.product,
      pair[adapter.a].astype(jnp.float32),
      pair[adapter.b].astype(jnp.float32),
      precision="highest",
    )
    module[adapter.weight] = (
      module[adapter.weight].astype(jnp.float32) + lora.scale * change
    )
    layers[adapter.module] = module
  return base | {"layers": layers}
