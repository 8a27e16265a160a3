"""The decoder, one definition for training and for cached decoding.

Flow: tokens -> embedding -> layers (scanned) -> final norm -> hidden states;
`project_logits` is a separate call, so the learner and the sampler apply the
head only where they need it. The network never sees a mask or a cache: each
layer hands rotated q, k, v to the caller's `attend`, which decides what may be
seen and threads a `carry` (the KV cache, or None) through the layers.

Axes: B row, T token, D model, N query heads, K key/value heads, H head dim,
F feed-forward, L layer, V vocabulary. Heads are laid out as Hugging Face does:
query head n uses key/value head n // (N // K).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import chunked, mesh_axes, products, remat

Architecture = architecture_lib.Architecture
INIT_STD = 0.02  # of every matrix, as Qwen

# Of a feed-forward network at once, where `remat` takes it apart; on a CPU
# what lies between its products stays in a core's cache.
_CHUNK_TOKENS, _CPU_CHUNK_TOKENS = 4096, 512

Params = dict[str, Any]  # nested dict of arrays; layers carry a leading L
# (layer index, q_BTNH, k_BTKH, v_BTKH, carry) -> (out_BTNH, carry)
Attend = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]


class RMSNorm(nnx.Module):
  """Root-mean-square norm, computed in float32."""

  def __init__(self, size: int, eps: float):
    self.scale = nnx.Param(jnp.ones((size,)))
    self.eps = eps

  def __call__(self, x):
    x32 = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    x32 = x32 * jax.lax.rsqrt(variance + self.eps)
    return (self.scale[...].astype(jnp.float32) * x32).astype(x.dtype)


class Attention(nnx.Module):
  """Projections around the caller's `attend`."""

  def __init__(self, arch: Architecture, rngs: nnx.Rngs):
    d, h = arch.hidden_size, arch.head_dim
    n, k = arch.num_heads, arch.num_kv_heads
    init = nnx.initializers.normal(INIT_STD)
    self.q_DNH = nnx.Param(init(rngs.params(), (d, n, h)))
    self.k_DKH = nnx.Param(init(rngs.params(), (d, k, h)))
    self.v_DKH = nnx.Param(init(rngs.params(), (d, k, h)))
    self.o_NHD = nnx.Param(init(rngs.params(), (n, h, d)))
    if arch.qkv_bias:
      self.q_bias_NH = nnx.Param(jnp.zeros((n, h)))
      self.k_bias_KH = nnx.Param(jnp.zeros((k, h)))
      self.v_bias_KH = nnx.Param(jnp.zeros((k, h)))
    if arch.qk_norm:
      self.q_norm = RMSNorm(h, arch.rms_norm_eps)
      self.k_norm = RMSNorm(h, arch.rms_norm_eps)
    self.arch = arch
    _add_adapters(self, arch, rngs)

  def __call__(self, x_BTD, cos_BTH, sin_BTH, attend: Attend, layer, carry):
    arch = self.arch
    n, k, h = arch.num_heads, arch.num_kv_heads, arch.head_dim
    rows = x_BTD.shape[:-1]
    q_BTNH = _linear(self, "q_DNH", x_BTD).reshape(*rows, n, h)
    k_BTKH = _linear(self, "k_DKH", x_BTD).reshape(*rows, k, h)
    v_BTKH = _linear(self, "v_DKH", x_BTD).reshape(*rows, k, h)
    if arch.qkv_bias:
      q_BTNH += _cast(self.q_bias_NH, x_BTD)
      k_BTKH += _cast(self.k_bias_KH, x_BTD)
      v_BTKH += _cast(self.v_bias_KH, x_BTD)
    if arch.qk_norm:
      q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
    q_BTNH = _rotate(q_BTNH, cos_BTH, sin_BTH)
    k_BTKH = _rotate(k_BTKH, cos_BTH, sin_BTH)
    out_BTNH, carry = attend(layer, q_BTNH, k_BTKH, v_BTKH, carry)
    return _linear(self, "o_NHD", out_BTNH.reshape(*rows, n * h)), carry


class MLP(nnx.Module):
  """SwiGLU."""

  def __init__(self, arch: Architecture, rngs: nnx.Rngs):
    d, f = arch.hidden_size, arch.intermediate_size
    init = nnx.initializers.normal(INIT_STD)
    self.gate_DF = nnx.Param(init(rngs.params(), (d, f)))
    self.up_DF = nnx.Param(init(rngs.params(), (d, f)))
    self.down_FD = nnx.Param(init(rngs.params(), (f, d)))
    self.arch = arch
    _add_adapters(self, arch, rngs)

  def __call__(self, x_BTD):
    gate_BTF = _linear(self, "gate_DF", x_BTD)
    up_BTF = _linear(self, "up_DF", x_BTD)
    return _linear(self, "down_FD", products.gated(gate_BTF, up_BTF))


class DecoderLayer(nnx.Module):
  """Pre-norm attention and MLP with residuals."""

  def __init__(self, arch: Architecture, rngs: nnx.Rngs):
    self.attention_norm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
    self.attention = Attention(arch, rngs)
    self.mlp_norm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
    self.mlp = MLP(arch, rngs)

  def __call__(
    self, x_BTD, cos_BTH, sin_BTH, attend: Attend, layer, carry, mesh
  ):
    out_BTD, carry = self.attention(
      self.attention_norm(x_BTD), cos_BTH, sin_BTH, attend, layer, carry
    )
    x_BTD = x_BTD + out_BTD
    return x_BTD + self._feed_forward(x_BTD, mesh), carry

  def _feed_forward(self, x_BTD, mesh):
    arch = self.mlp.arch
    on_cpu = mesh_axes.platform(mesh) == "cpu"
    tokens = _CPU_CHUNK_TOKENS if on_cpu else _CHUNK_TOKENS
    if arch.remat != "attention" or x_BTD.shape[1] <= tokens:
      return self.mlp(self.mlp_norm(x_BTD))
    definition, weights = nnx.split((self.mlp_norm, self.mlp))

    def of_tokens(weights, x_BTD):
      norm, mlp = nnx.merge(definition, weights)
      return mlp(norm(x_BTD))

    return chunked.in_chunks(
      of_tokens, weights, x_BTD, tokens=tokens, mesh=mesh
    )


class Transformer(nnx.Module):
  """The whole network; `layers` holds all layers stacked on axis 0."""

  def __init__(self, arch: Architecture, rngs: nnx.Rngs):
    init = nnx.initializers.normal(INIT_STD)
    shape_VD = (arch.vocab_size, arch.hidden_size)
    self.embedding_VD = nnx.Param(init(rngs.params(), shape_VD))

    @nnx.split_rngs(splits=arch.num_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def stack(rngs):
      return DecoderLayer(arch, rngs)

    self.layers = stack(rngs)
    self.final_norm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
    if not arch.tie_embeddings:
      self.head_VD = nnx.Param(init(rngs.params(), shape_VD))
    self.arch = arch

  def __call__(
    self,
    tokens_BT,
    positions_BT,
    attend: Attend,
    carry,
    unroll: int,
    mesh,
    layers: tuple[Params, ...] | None,
  ):
    arch = self.arch
    rows_mesh = jax.typeof(tokens_BT).sharding.mesh
    embedding = {"embedding_VD": self.embedding_VD[...]}
    embedding = mesh_axes.gather_over_fsdp(embedding, mesh, arch.dtype)
    x_BTD = embedding["embedding_VD"][tokens_BT].astype(arch.dtype)
    x_BTD = mesh_axes.pin_rows(x_BTD, mesh)
    cos_BTH, sin_BTH = _rope_tables(positions_BT, arch)
    definition, stacked = nnx.split(self.layers)
    if layers is not None:
      for index, weights in enumerate(layers):
        nnx.replace_by_pure_dict(stacked, weights)
        layer = nnx.merge(definition, stacked)
        x_BTD, carry = layer(
          x_BTD, cos_BTH, sin_BTH, attend, index, carry, rows_mesh
        )
      return self.final_norm(x_BTD), carry

    def layer_step(state, scanned):
      x_BTD, carry = state
      x_BTD = remat.layer_input(x_BTD)
      weights, index = scanned
      weights = mesh_axes.gather_over_fsdp(weights, mesh, arch.dtype)
      layer = nnx.merge(definition, weights)
      x_BTD, carry = layer(
        x_BTD, cos_BTH, sin_BTH, attend, index, carry, rows_mesh
      )
      return (mesh_axes.pin_rows(x_BTD, mesh), carry), None

    (x_BTD, carry), _ = jax.lax.scan(
      remat.rematerialised(layer_step, arch.remat),
      (x_BTD, carry),
      (stacked, jnp.arange(arch.num_layers)),
      unroll=unroll,
    )
    return self.final_norm(x_BTD), carry


def init_params(arch: Architecture, key: jax.Array) -> Params:
  """Random float32 parameters as a nested dict; call it under `jax.jit`."""
  model = Transformer(arch, nnx.Rngs(params=key))
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def param_shapes(arch: Architecture) -> Params:
  """The structure of `init_params` with float32 shapes for arrays."""
  return jax.eval_shape(lambda: init_params(arch, jax.random.key(0)))


def unstack(params: Params) -> Params:
  """`params` with a tuple of layers in place of stacked arrays.

  `forward` then runs them one by one. For a loop around `forward`: a scan cuts
  each layer's weights out of the stack anew, in every round.
  """
  stacked = params["layers"]
  count = jax.tree.leaves(stacked)[0].shape[0]
  layer = lambda index: jax.tree.map(lambda x_L: x_L[index], stacked)
  return params | {"layers": tuple(layer(index) for index in range(count))}


def forward(
  arch: Architecture,
  params: Params,
  tokens_BT,
  positions_BT,
  attend: Attend,
  carry: Any = None,
  unroll: int = 1,
):
  """Hidden states after the final norm.

  Args:
    arch: static.
    params: from `init_params` or an import; or from `unstack`.
    tokens_BT: int32 token ids.
    positions_BT: int32 RoPE positions.
    attend: sees (layer index, rotated q, rotated k, v, carry).
    carry: threaded through the layers, e.g. a KV cache.
    unroll: layers per scan iteration; `arch.num_layers` unrolls fully.
      Without effect on unstacked layers.

  Returns:
    (hidden_BTD in `arch.dtype`, carry).
  """
  definition, state = _abstract(arch)
  layers = params["layers"] if isinstance(params["layers"], tuple) else None
  if layers is not None:
    params = {name: value for name, value in params.items() if name != "layers"}
  nnx.replace_by_pure_dict(state, params)
  model = nnx.merge(definition, state)
  # Decode steps have few rows: moving activations beats gathering weights.
  mesh = None
  if tokens_BT.shape[1] > 1:
    mesh = mesh_axes.mesh_of_params(params)
  return model(tokens_BT, positions_BT, attend, carry, unroll, mesh, layers)


def project_logits(arch: Architecture, params: Params, hidden_D):
  """float32 logits [..., V] of hidden states [..., D]."""
  name = "embedding_VD" if arch.tie_embeddings else "head_VD"
  weight_VD = params[name].astype(hidden_D.dtype)
  return jax.lax.dot_general(
    hidden_D,
    weight_VD,
    (((hidden_D.ndim - 1,), (1,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _abstract(arch: Architecture):
  model = nnx.eval_shape(lambda: Transformer(arch, nnx.Rngs(params=0)))
  return nnx.split(model)


def _cast(param: nnx.Param, like):
  return param[...].astype(like.dtype)


def _add_adapters(module: Any, arch: Architecture, rngs: nnx.Rngs) -> None:
  """A pair of parameters beside each adapted weight of `module`.

  A is drawn as PEFT does, uniform within 1 / sqrt(inputs); B is zero.
  """
  if arch.lora is None:
    return
  for adapter in arch.lora.adapters():
    if not hasattr(module, adapter.weight):
      continue
    shape = getattr(module, adapter.weight)[...].shape
    ins, outs = shape[: adapter.inputs], shape[adapter.inputs :]
    limit = math.prod(ins) ** -0.5
    drawn = jax.random.uniform(
      rngs.params(), (*ins, arch.lora.rank), minval=-limit, maxval=limit
    )
    setattr(module, adapter.a, nnx.Param(drawn))
    zeros = jnp.zeros((arch.lora.rank, *outs))
    setattr(module, adapter.b, nnx.Param(zeros))


def _linear(module: Any, name: str, x):
  """x [..., I] through weight `name` and its adapter, if it has one.

  I is all input axes of the weight, flat; returns [..., all output axes, flat].
  """
  weight = _cast(getattr(module, name), x)
  out = products.linear(x, weight.reshape(x.shape[-1], -1))
  lora = module.arch.lora
  if lora is not None and (adapter := lora.adapter_of(name)) is not None:
    a = _cast(getattr(module, adapter.a), x).reshape(x.shape[-1], lora.rank)
    b = _cast(getattr(module, adapter.b), x).reshape(lora.rank, -1)
    low = products.linear(x, a).astype(x.dtype)
    out += lora.scale * products.linear(low, b)
  return out.astype(x.dtype)


def _rope_tables(positions_BT, arch: Architecture):
  """cos and sin of the rotary angles, float32 [B, T, 1, H / 2]."""
  half = arch.head_dim // 2
  exponent_H = jnp.arange(half, dtype=jnp.float32) / half
  frequency_H = 1.0 / (arch.rope_theta**exponent_H)
  angle_BTH = positions_BT.astype(jnp.float32)[..., None] * frequency_H
  return jnp.cos(angle_BTH)[..., None, :], jnp.sin(angle_BTH)[..., None, :]


def _rotate(x_BTNH, cos_BTH, sin_BTH):
  """Rotary embedding, halves convention (first half with second half)."""
  first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [
      first * cos_BTH - second * sin_BTH,
      second * cos_BTH + first * sin_BTH,
    ],
    axis=-1,
  )
  return rotated.astype(x_BTNH.dtype)
