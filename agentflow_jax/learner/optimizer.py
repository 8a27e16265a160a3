"""AdamW with schedules, global-norm clipping and float32 master weights.

Flow: float32 gradients -> clip to a global norm -> Adam moments -> decoupled
weight decay -> float32 parameters -> cast to the parameter dtype.

Moments and masters are float32 whatever the parameters are stored in: at
learning rate 1e-6 an update is far below bfloat16's resolution, and without
masters a bfloat16 policy would silently never move. Weight decay acts on every
parameter, as in the reference.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from agentflow_jax.core import config as config_lib

# Top-level parameters with a row per token of the vocabulary.
_EMBEDDINGS = ("embedding_VD", "head_VD")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OptimizerState:
  """Moments, and float32 copies of the parameters stored in another dtype."""

  inner: Any  # optax state
  masters: Any  # same tree as the params; None where they are float32


def learning_rate(config: config_lib.LearnerConfig, total_steps: int):
  """`step -> float32 learning rate`, for steps counted from 0.

  Warm-up is linear and its first step already moves (lr / warmup_steps); then
  `constant`, or `linear` or `cosine` down to 0 at `total_steps`.

  Raises:
    ValueError: unknown schedule.
  """
  if config.schedule not in ("constant", "linear", "cosine"):
    raise ValueError(
      f"schedule {config.schedule!r} is unknown; known: constant, linear, "
      "cosine"
    )
  warmup = config.warmup_steps
  decay_steps = max(1, total_steps - warmup)

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    rising = jnp.minimum(1.0, (step + 1) / max(1, warmup))
    progress = jnp.clip((step - warmup) / decay_steps, 0.0, 1.0)
    falling = {
      "constant": 1.0,
      "linear": 1.0 - progress,
      "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
    }[config.schedule]
    return jnp.float32(config.lr) * rising * falling

  return schedule


class Optimizer:
  """The optimizer as three pure functions over parameter trees."""

  def __init__(self, config: config_lib.LearnerConfig, total_steps: int):
    # Before everything, so that they do not count in the norm, and after it,
    # so that they do not decay.
    still = [] if config.train_embeddings else [_without_embeddings()]
    self._transform = optax.chain(
      *still,
      optax.clip_by_global_norm(config.max_grad_norm),
      optax.adamw(
        learning_rate(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
      ),
      *still,
    )

  def init(self, params) -> OptimizerState:
    """Zero moments, and masters where `params` are not float32."""
    return OptimizerState(
      inner=self._transform.init(_float32(params)),
      masters=jax.tree.map(
        lambda p: None if p.dtype == jnp.float32 else p.astype(jnp.float32),
        params,
      ),
    )

  def update(self, gradients, state: OptimizerState, params):
    """One step; returns (new params, new state).

    `gradients` are float32, of the same tree as `params`.
    """
    current = jax.tree.map(
      lambda p, m: p if m is None else m, params, state.masters
    )
    updates, inner = self._transform.update(gradients, state.inner, current)
    moved = optax.apply_updates(current, updates)
    masters = jax.tree.map(
      lambda p, m: None if p.dtype == jnp.float32 else m, params, moved
    )
    moved = jax.tree.map(lambda p, m: m.astype(p.dtype), params, moved)
    return moved, OptimizerState(inner=inner, masters=masters)

  def state_shardings(self, params, shardings, replicated) -> OptimizerState:
    """Shardings of `init(params)`: like their parameter, counters replicated.

    Args:
      params: arrays or `ShapeDtypeStruct`s.
      shardings: the same tree, of shardings.
      replicated: for everything that belongs to no parameter.
    """
    abstract = jax.eval_shape(self.init, params)
    inner = optax.tree_utils.tree_map_params(
      self._transform.init,
      lambda _, sharding: sharding,
      abstract.inner,
      shardings,
      transform_non_params=lambda _: replicated,
    )
    masters = jax.tree.map(
      lambda p, s: None if p.dtype == jnp.float32 else s, params, shardings
    )
    return OptimizerState(inner=inner, masters=masters)


def _without_embeddings() -> optax.GradientTransformation:
  """Zeroes what belongs to the embedding table or the head."""
  return optax.masked(
    optax.set_to_zero(),
    lambda params: jax.tree.map_with_path(
      lambda path, _: getattr(path[0], "key", "") in _EMBEDDINGS, params
    ),
  )


def _float32(params):
  return jax.tree.map(lambda p: p.astype(jnp.float32), params)
