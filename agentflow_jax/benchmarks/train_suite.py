"""The train suite: an optimizer step of our learner against rows of peers.

Flow: samples of the `agentflow` workload -> our step (token trees) and the
peers' (a row per turn) in turn, on equal samples -> times, memory, and how many
tokens were computed. Token counts of longer trajectories and of a run's own
rollouts need no device and come beside it, as does the gradient of trees
against that of rows.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentflow_jax.batching import device_batch, packing, samples
from agentflow_jax.benchmarks import flops as flops_lib
from agentflow_jax.benchmarks import (
  measuring,
  peers,
  report,
  train_workload,
  workloads,
)
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import objectives
from agentflow_jax.models import presets, sharding, transformer
from agentflow_jax.rollout import recorder
from agentflow_jax.training import run_dir as run_dir_lib

_OURS = "agentflow_jax"
_TURNS = (3, 10)
# Model -> tasks of the step that is timed; a big model takes fewer.
MODELS = {"bench_tiny": 4, "qwen2_5_0_5b": 1}
_ROW_STEP = 64  # between the lengths of rows that are tried
_FITTED_SEEDS = 16  # rounds whose samples fit those rows


class Steps:
  """Our learner as a `measuring.System`."""

  name = _OURS

  def __init__(self, model: str, shape: workloads.Shape):
    self._shape = shape
    self._arch = dataclasses.replace(
      presets.ARCHITECTURES[model], remat="attention"
    )
    self._mesh = sharding.make_mesh(len(jax.devices()), 1, 1)
    self.config = _config(shape, self._mesh.size)
    self._before_bytes = measuring.resident_bytes("VmRSS")
    learner = learner_lib.Learner(
      self._arch,
      self.config,
      temperature=1.0,
      mesh=self._mesh,
      total_steps=1000,
    )
    self._learner = learner
    self._state = learner.init_state(_random_params(self._arch, self._mesh))
    self.metrics: dict[str, float] = {}  # of the latest step

  def run(self, seed: int) -> measuring.Timing:
    found = train_workload.samples(self._shape, self._arch.vocab_size, seed)
    measuring.forget_peak()
    timing = measuring.timed(lambda: self._step(found))
    peak = measuring.resident_bytes("VmHWM") - self._before_bytes
    return dataclasses.replace(timing, peak_bytes=max(0, peak))

  def _step(self, found: list[train_workload.TrainingSample]) -> None:
    packed = device_batch.make_micro_batches(found, self.config, self._mesh)
    self._state, metrics = self._learner.update(self._state, packed.batches)
    if metrics["skipped"]:
      raise errors.EngineError(f"the step was skipped: {metrics}")
    self.metrics = packed.metrics | metrics


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
  """The timed step of one model."""

  model: str
  shape: workloads.Shape
  rounds: measuring.Rounds
  metrics: dict[str, float]  # of our packing
  options: dict[str, Any]  # peer -> what it ran with
  grad_error: float

  @property
  def flops(self) -> float:
    """Of distinct tokens, forward and twice that backward."""
    arch = presets.ARCHITECTURES[self.model]
    return 3.0 * flops_lib.unique(self.shape).flops(arch)

  def peak_bytes(self, name: str) -> int:
    return max(timing.peak_bytes for timing in self.rounds.timings[name])


def run(
  *,
  models: Sequence[str],
  peer_names: Sequence[str],
  rounds: int,
  run_dir: str = "",
) -> report.Report:
  """Runs the suite.

  Args:
    models: of `MODELS`; the figures of the first are the report's.
    peer_names: of `peers.TRAIN_PEERS`.
    rounds: that count.
    run_dir: a run whose recorded rollouts are counted too; empty for none.

  Raises:
    UserError: an unknown model or peer, a peer that is not installed, or a run
      without rollouts.
  """
  peers.check_names("--models", models, MODELS)
  peers.check_names("--peers", peer_names, peers.TRAIN_PEERS)
  counted = _counts() | (_recorded(pathlib.Path(run_dir)) if run_dir else {})
  found = [measure(model, peer_names, rounds) for model in models]
  figures = {outcome.model: _figures(outcome) for outcome in found}
  sections = [_section(outcome) for outcome in found]
  rows = [{"count": k, "value": f"{v:.4g}"} for k, v in counted.items()]
  return report.Report(
    suite="train",
    figures=counted | figures[models[0]] | {"models": figures},
    sections=[report.Section(title="tokens", rows=rows), *sections],
  )


def measure(model: str, peer_names: Sequence[str], rounds: int) -> Outcome:
  """The step of one model, all systems in turn."""
  shape = train_workload.trajectories(MODELS[model], _TURNS[0])
  with contextlib.ExitStack() as stack:
    ours = Steps(model, shape)
    others = [
      stack.enter_context(peers.Peer(name, model, shape, peers.TRAIN_PEERS))
      for name in peer_names
    ]
    found = measuring.in_turn([ours, *others], rounds)
    options = {peer.name: peer.option for peer in others}
  return Outcome(
    model=model,
    shape=shape,
    rounds=found,
    metrics=ours.metrics,
    options=options,
    grad_error=grad_error(model, dataclasses.replace(shape, tasks=1)),
  )


def grad_error(model: str, shape: workloads.Shape) -> float:
  """The largest difference of a gradient from trees to that from rows.

  Of every parameter array, relative to its largest entry.
  """
  arch = presets.ARCHITECTURES[model]
  mesh = sharding.make_mesh(len(jax.devices()), 1, 1)
  params = _random_params(arch, mesh)
  found = train_workload.samples(shape, arch.vocab_size, 0)
  trees = _config(shape, mesh.size)
  rows = dataclasses.replace(
    trees, packing="rows", row_tokens=_longest_row(shape)
  )
  tree, row = (_gradient(arch, params, found, c, mesh) for c in (trees, rows))
  errors_by_array = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), tree, row
  )
  return max(jax.tree.leaves(errors_by_array))


def _gradient(arch, params, found, config, mesh):
  scoring = objectives.Scoring(
    temperature=1.0, chunk_tokens=config.loss_chunk_tokens
  )
  objective = objectives.flow_grpo(arch, scoring, config)
  one = jax.jit(
    lambda params, batch: jax.grad(objective, has_aux=True)(
      params, None, batch
    )[0]
  )
  batches = device_batch.make_micro_batches(found, config, mesh).batches
  total = one(params, batches[0])
  for batch in batches[1:]:
    total = jax.tree.map(jnp.add, total, one(params, batch))
    jax.block_until_ready(total)  # see `Learner`: collectives on a CPU
  return total


def _config(shape: workloads.Shape, devices: int) -> config_lib.LearnerConfig:
  """Flow-GRPO without a reference; the shortest rows of one per device.

  Every round has other lengths: a row that is a little too short for one of
  them would cost it another micro-batch, most of it padding.
  """
  tokens = 0
  for seed in range(_FITTED_SEEDS):
    found = train_workload.samples(shape, 4096, seed)
    whole = sum(len(s.prompt_ids) + len(s.completion_ids) for s in found)
    packed = packing.pack_samples(found, row_tokens=whole)
    least = int(packed.metrics["distinct_tokens"]) // devices
    tokens = max(tokens, -(-least // _ROW_STEP) * _ROW_STEP)
    while len(packing.pack_samples(found, row_tokens=tokens).rows) > devices:
      tokens += _ROW_STEP
  return config_lib.LearnerConfig(
    kl_coefficient=0.0, row_tokens=tokens, micro_batch_rows=1
  )


def _longest_row(shape: workloads.Shape) -> int:
  return shape.prompt_tokens(shape.turns - 1) + shape.completion_tokens[1]


def _counts() -> dict[str, float]:
  """Tokens of whole workloads, of which packing alone decides."""
  counted = {}
  for turns in _TURNS:
    shape = train_workload.trajectories(8, turns)
    found = train_workload.samples(shape, 4096, 0)
    row_tokens = _config(shape, 2).row_tokens
    metrics = packing.pack_samples(found, row_tokens=row_tokens).metrics
    counted |= {
      f"rows_over_tree_{turns}turns": metrics["sample_tokens"]
      / metrics["computed_tokens"],
      f"computed_over_distinct_{turns}turns": metrics["computed_over_distinct"],
    }
  return counted


def _recorded(run_dir: pathlib.Path) -> dict[str, float]:
  """The same of the rollouts that a run recorded, with its own settings."""
  config = run_dir_lib.read_config(run_dir)
  paths = sorted((run_dir / "rollouts" / "train").glob("iteration_*.jsonl"))
  if not paths:
    raise errors.UserError(f"{run_dir}: no recorded training rollouts")
  totals = np.zeros(3)
  for path in paths:
    sample_set = samples.build_samples(
      _groups(recorder.read_trajectories(path)),
      config.learner,
      max_turns=config.agent.max_turns,
      max_completion_tokens=config.sampler.max_completion_tokens,
    )
    for mini_batch in sample_set.mini_batches:
      metrics = packing.pack_samples(
        mini_batch, row_tokens=config.learner.row_tokens
      ).metrics
      totals += [
        metrics[name]
        for name in ("sample_tokens", "computed_tokens", "distinct_tokens")
      ]
  return {
    "recorded_rows_over_tree": totals[0] / max(1.0, totals[1]),
    "recorded_computed_over_distinct": totals[1] / max(1.0, totals[2]),
  }


def _groups(trajectories) -> list[trajectory_lib.TrajectoryGroup]:
  by_task: dict[str, list[trajectory_lib.Trajectory]] = {}
  for trajectory in trajectories:
    by_task.setdefault(trajectory.task.id, []).append(trajectory)
  return [
    trajectory_lib.TrajectoryGroup(
      task=members[0].task, trajectories=tuple(members)
    )
    for members in by_task.values()
  ]


def _figures(outcome: Outcome) -> dict[str, Any]:
  ours = outcome.rounds
  figures: dict[str, Any] = {}
  for peer in peers.TRAIN_PEERS:
    ran = peer in outcome.options
    figures |= {
      f"step_ratio_{peer}": ours.ratio(peer, _OURS).median if ran else None,
      f"peak_bytes_ratio_{peer}": (
        outcome.peak_bytes(_OURS) / max(1, outcome.peak_bytes(peer))
        if ran
        else None
      ),
    }
  metrics = outcome.metrics
  return figures | {
    "computed_over_distinct": metrics["computed_over_distinct"],
    "computed_and_padding_over_distinct": (
      metrics["computed_tokens"] + metrics["padding_tokens"]
    )
    / metrics["distinct_tokens"],
    "flops_fraction": ours.peak_share(_OURS, outcome.flops).median,
    "distinct_tokens_per_s": ours.rate(
      _OURS, metrics["distinct_tokens"]
    ).median,
    "peak_bytes": outcome.peak_bytes(_OURS),
    "max_rel_grad_error": outcome.grad_error,
  }


def _section(outcome: Outcome) -> report.Section:
  rounds, shape, metrics = outcome.rounds, outcome.shape, outcome.metrics
  rows = [
    {
      "system": name,
      "step s": measuring.Spread.of(t.wall_s for t in timings).text(),
      "times ours": rounds.ratio(name, _OURS).text(),
      "peak MiB": f"{outcome.peak_bytes(name) / 2**20:.0f}",
      "ran with": report.compact(outcome.options.get(name, {})),
    }
    for name, timings in rounds.timings.items()
  ]
  share = rounds.peak_share(_OURS, outcome.flops)
  peak = measuring.Spread.of(x / 1e9 for x in rounds.gemm_flops)
  return report.Section(
    title=f"{outcome.model}, {shape.name}: {shape.tasks} tasks x "
    f"{shape.members} members, one optimizer step",
    rows=rows,
    notes=[
      f"peak: {peak.text(0)} GFLOP/s; distinct tokens reach {share.text()} of "
      f"it ({outcome.flops / 1e9:.0f} GFLOP)",
      f"{metrics['sample_tokens']:.0f} tokens in turns, "
      f"{metrics['distinct_tokens']:.0f} distinct, "
      f"{metrics['computed_tokens']:.0f} computed, "
      f"{metrics['padding_tokens']:.0f} of padding",
      f"gradient of trees against rows: {outcome.grad_error:.2g} relative",
    ],
  )


def _random_params(arch, mesh):
  make = jax.jit(
    lambda key: transformer.init_params(arch, key),
    out_shardings=sharding.param_shardings(arch, mesh),
  )
  return make(jax.random.key(0))
