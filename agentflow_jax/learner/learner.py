"""The Learner: micro-batches in, one optimizer step out.

Flow: accumulate(params, reference, gradients, batch) once per micro-batch ->
apply(state, gradients) once. Both are jitted once per shape and objective, so
more micro-batches never compile more. Gradients and losses are float32 sums;
the data axes of the mesh split the rows, so a step is one global program.

A loop on the host, not a `lax.scan` over stacked micro-batches: a scan is
another program for every number of micro-batches, which changes from step to
step, and saves nothing. Both hold one float32 accumulator, which is donated,
and the gradient of one micro-batch.

A step whose loss or gradient is not finite changes nothing: apply keeps every
bit of the parameters and the optimizer state, and counts the skip.

It does not build batches, sample, save, or decide when to stop the run; it
raises `TrainingDivergedError` when going on would be pointless.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.learner import objectives, train_state
from agentflow_jax.learner import optimizer as optimizer_lib
from agentflow_jax.learner import statistics as statistics_lib
from agentflow_jax.models import lora, sharding, transformer

TrainBatch = device_batch.TrainBatch
TrainState = train_state.TrainState


class TrainingDivergedError(errors.AgentFlowError):
  """Too many non-finite steps in a row, or too much sampler-learner drift."""


class Learner:
  """Owns the jitted programs of one policy; holds no parameters.

  Example:
    learner = Learner(arch, config, temperature=0.7, mesh=mesh, total_steps=100)
    state = learner.init_state(params)
    state, metrics = learner.update(state, micro_batches, reference_params)
  """

  def __init__(
    self,
    arch: transformer.Architecture,
    config: config_lib.LearnerConfig,
    *,
    temperature: float,
    mesh: jax.sharding.Mesh,
    total_steps: int,
  ):
    """
    Args:
      arch: of the policy. If it has adapters, only they are trained, and the
        reference, which every call then needs, is their base.
      config: Flow-GRPO and optimizer settings; read once.
      temperature: of the sampler, > 0; logits are divided by it to score.
      mesh: with the axes of `models.sharding`.
      total_steps: optimizer steps of the whole run, for decaying schedules.

    Raises:
      ValueError: temperature is not positive, or an unknown schedule.
    """
    if not temperature > 0:
      raise ValueError(
        f"temperature must be > 0 to train on what was sampled: {temperature}"
      )
    self.compiles = 0  # programs traced so far; constant after warm-up
    self._config = config
    self._schedule = optimizer_lib.learning_rate(config, total_steps)
    self._optimizer = optimizer_lib.Optimizer(config, total_steps)
    self._arch = arch
    self._shardings = _trained(arch, sharding.param_shardings(arch, mesh))
    self._replicated = jax.sharding.NamedSharding(mesh, jax.P())
    # Unread results of several programs with collectives can deadlock the
    # all-reduce of virtual CPU devices, so there each one is awaited.
    self._await_each = mesh.devices.flat[0].platform == "cpu"
    # The knob is per device; arrays inside jit are global.
    chunk_tokens = config.loss_chunk_tokens
    for axis in device_batch.DATA_AXES:
      chunk_tokens *= mesh.shape[axis]
    scoring = objectives.Scoring(
      temperature=temperature, chunk_tokens=chunk_tokens
    )
    self._accumulate = {
      "flow_grpo": self._accumulator(
        objectives.flow_grpo(arch, scoring, config)
      ),
      "imitation": self._accumulator(objectives.imitation(arch, scoring)),
    }
    self._programs = {}  # by parameter dtypes: only bfloat16 has masters
    self._zeros = jax.jit(
      _zeros_like, out_shardings=(self._shardings, self._replicated)
    )
    self._merge = jax.jit(statistics_lib.merge, out_shardings=self._replicated)
    self._score = jax.jit(
      lambda params, batch: objectives.score_batch(
        arch, scoring, params, batch
      )[0],
      out_shardings=device_batch.batch_sharding(mesh),
    )

  def init_state(self, params: transformer.Params) -> TrainState:
    """The state before the first step.

    Copies what is trained of the policy's `params`, which stay usable.
    """
    params = _trained(self._arch, params)
    # A real copy: device_put may hand back the caller's own buffers, which the
    # first update would then delete.
    params = jax.tree.map(
      lambda p, s: jnp.copy(jax.device_put(p, s)), params, self._shardings
    )
    zero = jax.device_put(jnp.zeros((), jnp.int32), self._replicated)
    return TrainState(
      params=params,
      opt_state=self._init_and_apply(params)[0](params),
      step=zero,
      skipped=jnp.copy(zero),
      consecutive_skipped=jnp.copy(zero),
    )

  def update(
    self,
    state: TrainState,
    micro_batches: Sequence[TrainBatch],
    reference_params: transformer.Params | None = None,
    *,
    objective: str = "flow_grpo",
  ) -> tuple[TrainState, dict[str, float]]:
    """One optimizer step over all `micro_batches`.

    Consumes `state`: its buffers are donated, use the returned one. Without
    micro-batches there is nothing to learn: the state comes back as it is and
    the metrics hold only `tokens` (0).

    Args:
      state: from `init_state`, a restore or the last update.
      micro_batches: placed on the mesh, all of one shape.
      reference_params: of the frozen start model; needed and used by
        "flow_grpo" with a KL coefficient, and as the base of adapters.
      objective: "flow_grpo", or "imitation" (`-sum weight * logprob` at
        temperature 1; advantages and behavior logprobs are not read).

    Returns:
      (next state, metrics as host floats): see `statistics.host_metrics`, and
      `loss`, `grad_norm` (before clipping), `lr`, `skipped` (1 if this step
      was), `skipped_steps` (in total).

    Raises:
      ValueError: unknown objective, or a reference is needed and missing.
      TrainingDivergedError: `max_non_finite_steps` in a row, or mean drift
        above `max_drift`. The state is lost; go back to a checkpoint.
    """
    if objective not in self._accumulate:
      raise ValueError(
        f"objective {objective!r} is unknown; known: {list(self._accumulate)}"
      )
    with_kl = objective == "flow_grpo" and self._config.kl_coefficient > 0
    if not with_kl and self._arch.lora is None:
      reference_params = None
    elif reference_params is None:
      raise ValueError("kl_coefficient > 0 or LoRA needs reference_params")
    if not micro_batches:
      return state, {"tokens": 0.0}
    gradients, loss = self._zeros(state.params)
    totals = None
    for batch in micro_batches:
      gradients, loss, statistics = self._accumulate[objective](
        state.params, reference_params, gradients, loss, batch
      )
      totals = statistics if totals is None else self._merge(totals, statistics)
      if self._await_each:
        jax.block_until_ready((loss, totals))
    _, apply = self._init_and_apply(state.params)
    state, report = apply(state, gradients, loss)
    report, totals = jax.device_get((report, totals))
    metrics = {name: float(value) for name, value in report.items()}
    consecutive = metrics.pop("consecutive_skipped")
    metrics = statistics_lib.host_metrics(totals) | metrics
    self._check(metrics, consecutive)
    return state, metrics

  def policy_params(
    self, state: TrainState, reference_params: transformer.Params | None
  ) -> transformer.Params:
    """What to sample from and to score with; shares every buffer."""
    return objectives.policy_params(self._arch, state.params, reference_params)

  def recompute(
    self, params: transformer.Params, micro_batches: Sequence[TrainBatch]
  ) -> tuple[TrainBatch, ...]:
    """The micro-batches with the learner's own logprobs under `params`.

    Call it for all data of an iteration before its first step, where
    `recompute_behavior` asks for it: the ratio is then taken to these, and the
    sampler's logprobs only measure drift and weigh tokens (`importance_cap`).
    """
    return tuple(
      dataclasses.replace(
        batch, recomputed_logprob_BE=self._score(params, batch)
      )
      for batch in micro_batches
    )

  def score(self, params: transformer.Params, micro_batch: TrainBatch):
    """Current float32 logprobs [B, E] at the sampling temperature."""
    return self._score(params, micro_batch)

  def _accumulator(self, objective: objectives.Objective):
    def accumulate(params, reference_params, gradients, loss, batch):
      self.compiles += 1
      (own_loss, statistics), own = jax.value_and_grad(objective, has_aux=True)(
        params, reference_params, batch
      )
      gradients = jax.tree.map(
        lambda total, g: total + g.astype(jnp.float32), gradients, own
      )
      return gradients, loss + own_loss, statistics

    return jax.jit(
      accumulate,
      donate_argnums=(2, 3),
      out_shardings=(self._shardings, self._replicated, self._replicated),
    )

  def _applied(self, state: TrainState, gradients, loss):
    self.compiles += 1
    norm = optax.tree_utils.tree_norm(gradients)
    # The norm is finite iff every gradient is (or too large to use).
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    params, opt_state = self._optimizer.update(
      gradients, state.opt_state, state.params
    )
    keep = functools.partial(jnp.where, finite)
    params, opt_state = jax.tree.map(
      keep, (params, opt_state), (state.params, state.opt_state)
    )
    skipped = 1 - finite.astype(jnp.int32)
    next_state = TrainState(
      params=params,
      opt_state=opt_state,
      step=state.step + 1 - skipped,
      skipped=state.skipped + skipped,
      consecutive_skipped=(state.consecutive_skipped + 1) * skipped,
    )
    report = {
      "loss": loss,
      "grad_norm": norm,
      "lr": self._schedule(state.step),
      "skipped": skipped,
      "skipped_steps": next_state.skipped,
      "consecutive_skipped": next_state.consecutive_skipped,
    }
    return next_state, report

  def _init_and_apply(self, params):
    """The two programs whose outputs are placed like a whole state."""
    dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(params))
    if dtypes not in self._programs:
      placed = self._state_shardings(params)
      self._programs[dtypes] = (
        jax.jit(self._optimizer.init, out_shardings=placed.opt_state),
        jax.jit(
          self._applied,
          donate_argnums=0,
          out_shardings=(placed, self._replicated),
        ),
      )
    return self._programs[dtypes]

  def _state_shardings(self, params) -> TrainState:
    """Where everything lives: moments and masters beside their parameter."""
    scalar: Any = self._replicated  # shardings in the place of arrays
    return TrainState(
      params=self._shardings,
      opt_state=self._optimizer.state_shardings(
        params, self._shardings, self._replicated
      ),
      step=scalar,
      skipped=scalar,
      consecutive_skipped=scalar,
    )

  def _check(self, metrics: dict[str, float], consecutive: float):
    if consecutive >= self._config.max_non_finite_steps:
      raise TrainingDivergedError(
        f"{consecutive:.0f} optimizer steps in a row were not finite (last "
        f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}); lower "
        "learner.lr or look at the recorded rollouts"
      )
    limit = self._config.max_drift
    if 0 < limit < metrics.get("drift_mean", 0.0):
      raise TrainingDivergedError(
        f"mean |current - behavior logprob| is {metrics['drift_mean']:.4g}, "
        f"above learner.max_drift={limit}: sampler and learner disagree"
      )


def _trained(arch, params):
  """What is trained of the parameters of `arch`: all, or the adapters."""
  return params if arch.lora is None else lora.select(params)


def _zeros_like(params):
  """Float32 accumulators: gradients and loss."""
  zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
  return zeros, jnp.zeros((), jnp.float32)
