"""One table between our parameters and Hugging Face tensors, read both ways.

A row names a parameter, the tensor it is stored as (one per layer where the
name has `{layer}`), and the layout between the two. torch keeps a linear
layer as [out, in]; ours is [in, out] with heads on their own axis.

Nothing here reads or writes files.

Axes: D model, N query heads, K key/value heads, H head dim, F feed-forward,
V vocabulary, L layer.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import jax

from agentflow_jax.models import transformer


@dataclasses.dataclass(frozen=True)
class Row:
  """One parameter and the tensors that hold it.

  `inputs` is the layout: None stores our array as it is; n >= 0 stores its
  first n axes, flat, as the last axis of the tensor and the others, flat, as
  the first (n = 0: a bias, which has no inputs).

  Example: `Row("layers/attention/o_NHD",
  "model.layers.{layer}.self_attn.o_proj.weight", 2)` stores layer 3 of our
  [L, N, H, D] as a [D, N * H] tensor with 3 in its name.
  """

  path: str
  hf_name: str
  inputs: int | None = None

  @property
  def stacked(self) -> bool:
    return "{layer}" in self.hf_name

  def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the tensor that stores one layer of our `shape` (without L)."""
    if self.inputs is None:
      return shape
    outputs = (math.prod(shape[self.inputs :]),)
    return outputs + ((math.prod(shape[: self.inputs]),) * (self.inputs > 0))

  def from_hf(self, tensor, shape: tuple[int, ...]):
    """Our array of `shape` (one layer) of a tensor; numpy gives a view."""
    return (tensor.T if self.inputs else tensor).reshape(shape)

  def to_hf(self, array):
    """The tensor that stores `array` (one layer); numpy or jax."""
    shape = self.hf_shape(array.shape)
    return array.reshape(shape[::-1]).T if self.inputs else array.reshape(shape)


_LAYER = "model.layers.{layer}."
_ATTENTION = _LAYER + "self_attn."
_ROWS = (
  Row("embedding_VD", "model.embed_tokens.weight"),
  Row("head_VD", "lm_head.weight"),
  Row("final_norm/scale", "model.norm.weight"),
  Row("layers/attention_norm/scale", _LAYER + "input_layernorm.weight"),
  Row("layers/mlp_norm/scale", _LAYER + "post_attention_layernorm.weight"),
  Row("layers/attention/q_DNH", _ATTENTION + "q_proj.weight", 1),
  Row("layers/attention/k_DKH", _ATTENTION + "k_proj.weight", 1),
  Row("layers/attention/v_DKH", _ATTENTION + "v_proj.weight", 1),
  Row("layers/attention/o_NHD", _ATTENTION + "o_proj.weight", 2),
  Row("layers/attention/q_bias_NH", _ATTENTION + "q_proj.bias", 0),
  Row("layers/attention/k_bias_KH", _ATTENTION + "k_proj.bias", 0),
  Row("layers/attention/v_bias_KH", _ATTENTION + "v_proj.bias", 0),
  Row("layers/attention/q_norm/scale", _ATTENTION + "q_norm.weight"),
  Row("layers/attention/k_norm/scale", _ATTENTION + "k_norm.weight"),
  Row("layers/mlp/gate_DF", _LAYER + "mlp.gate_proj.weight", 1),
  Row("layers/mlp/up_DF", _LAYER + "mlp.up_proj.weight", 1),
  Row("layers/mlp/down_FD", _LAYER + "mlp.down_proj.weight", 1),
)
_BY_PATH = {row.path: row for row in _ROWS}
# Published files hold these beside the weights: rotary tables that older
# versions of transformers saved, and a copy of the tied embedding.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class Slot:
  """A parameter of one architecture and how it is stored.

  `shape` is ours, with L in front where the row is stacked.
  """

  row: Row
  shape: tuple[int, ...]

  @property
  def layer_shape(self) -> tuple[int, ...]:
    return self.shape[1:] if self.row.stacked else self.shape

  @property
  def hf_shape(self) -> tuple[int, ...]:
    return self.row.hf_shape(self.layer_shape)

  def hf_names(self) -> list[str]:
    """One tensor name per layer, or one."""
    if not self.row.stacked:
      return [self.row.hf_name]
    return [self.row.hf_name.format(layer=i) for i in range(self.shape[0])]


def slots(arch: transformer.Architecture) -> list[Slot]:
  """Every parameter of `arch`, in the order exports write them.

  Raises:
    KeyError: the network has a parameter without a row (a bug).
  """
  shapes = {
    "/".join(key.key for key in path): leaf.shape
    for path, leaf in jax.tree_util.tree_flatten_with_path(
      transformer.param_shapes(arch)
    )[0]
  }
  unknown = shapes.keys() - _BY_PATH.keys()
  if unknown:
    raise KeyError(f"no row in the name table for {sorted(unknown)}")
  return [Slot(row, shapes[row.path]) for row in _ROWS if row.path in shapes]


def row_of(path: str) -> Row:
  """Of our parameter "layers/mlp/up_DF"."""
  return _BY_PATH[path]


def is_derived(name: str, arch: transformer.Architecture) -> bool:
  """True for a tensor that files may hold and nobody needs to read."""
  if name == "lm_head.weight":
    return arch.tie_embeddings
  return _DERIVED.fullmatch(name) is not None


def get(params: transformer.Params, path: str) -> Any:
  """The array at "a/b/c" of nested dicts."""
  node = params
  for key in path.split("/"):
    node = node[key]
  return node


def nest(items: Iterable[tuple[str, Any]]) -> transformer.Params:
  """Nested dicts of ("a/b/c", array) pairs; the inverse of `get`."""
  params: transformer.Params = {}
  for path, value in items:
    *parents, name = path.split("/")
    node = params
    for key in parents:
      node = node.setdefault(key, {})
    node[name] = value
  return params
