"""A network small enough for unit tests, with parameters that are not flat.

`init_params` starts a network whose logits are nearly uniform and whose
biases are zero: a forgotten bias or a swapped head would pass a test. The
parameters here are random everywhere (norm scales and biases too), scaled so
that logits have a standard deviation of about 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import transformer


def tiny_architecture(**overrides: Any) -> architecture_lib.Architecture:
  """A 2-layer Qwen2 with 4 query heads on 2 key/value heads (27k params).

  `vocab_size` fits the byte tokenizer (256 bytes and its specials).
  """
  arch = architecture_lib.Architecture(
    vocab_size=264,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=64,
    max_positions=512,
    rope_theta=10_000.0,
  )
  return dataclasses.replace(arch, **overrides)


def tiny_params(
  arch: architecture_lib.Architecture, seed: int = 0
) -> transformer.Params:
  """Random float32 parameters; equal seeds give equal bits on every backend.

  Matrices are normal(0, 1/fan_in), norm scales 1 + normal(0, 0.1), biases
  normal(0, 0.1).
  """
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(
    lambda: transformer.init_params(arch, jax.random.key(0))
  )

  def draw(path, shape):
    name = path[-1].key
    noise = rng.standard_normal(shape.shape, dtype=np.float32)
    if name == "scale":
      value = 1.0 + 0.1 * noise
    elif "_bias_" in name:
      value = 0.1 * noise
    else:
      value = noise * _fan_in(arch, name) ** -0.5
    return jnp.asarray(value, jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def _fan_in(arch: architecture_lib.Architecture, name: str) -> int:
  if name == "o_NHD":
    return arch.num_heads * arch.head_dim
  if name == "down_FD":
    return arch.intermediate_size
  return arch.hidden_size
