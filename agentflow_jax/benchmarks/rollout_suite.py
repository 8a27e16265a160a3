"""The rollout suite: our sampler against static batching of peers.

Flow: for each model and workload, our sampler and the peers run in turn
(measuring.py) on equal work; ours sees one coroutine per trajectory, as in
training, and starts every pass with nothing cached. The report has a table and
the figures that the bars are about.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from agentflow_jax.benchmarks import flops as flops_lib
from agentflow_jax.benchmarks import measuring, peers, report, workloads
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.models import presets, sharding, transformer
from agentflow_jax.sampler import sampler as sampler_lib

_OURS = "agentflow_jax"
# Model -> tasks of the agentflow workload; a big model takes fewer.
MODELS = {"bench_tiny": 8, "qwen2_5_0_5b": 1}


class Rollouts:
  """Our sampler as a `measuring.System`; close it when done."""

  name = _OURS

  def __init__(self, model: str, shape: workloads.Shape):
    self._shape = shape
    self._arch = presets.ARCHITECTURES[model]
    mesh = sharding.make_mesh(len(jax.devices()), 1, 1)
    self._sampler = sampler_lib.Sampler(
      self._arch,
      _random_params(self._arch, mesh),
      slots=-(-shape.rows // mesh.size) * mesh.size,
      max_prompt_tokens=shape.prompt_tokens(shape.turns - 1),
      max_completion_tokens=shape.completion_tokens[1],
      eos_ids=(),  # lengths are fixed
      mesh=mesh,
    )
    self._sampler.warm_up()

  def run(self, seed: int) -> measuring.Timing:
    turns = workloads.calls(self._shape, self._arch.vocab_size, seed)
    self._sampler.update_params(self._sampler.params, seed)
    return measuring.timed(lambda: asyncio.run(self._all(turns, seed)))

  def metrics(self) -> dict[str, float]:
    """What was done since the last call."""
    return self._sampler.metrics(reset=True)

  def close(self) -> None:
    asyncio.run(self._sampler.close())

  async def _all(self, turns: list[list[workloads.Call]], seed: int) -> None:
    rows = zip(*turns, strict=True)
    await asyncio.gather(*(self._trajectory(calls, seed) for calls in rows))

  async def _trajectory(
    self, calls: Sequence[workloads.Call], seed: int
  ) -> None:
    for turn, call in enumerate(calls):
      output = await self._sampler.sample(
        sampler_lib.SampleRequest(
          prompt_ids=call.prompt.tolist(),
          sampling=engine_lib.SamplingParams(max_tokens=call.completion_tokens),
          key_words=(seed, call.row * len(calls) + turn),
          session=call.row,
        )
      )
      assert len(output.token_ids) == call.completion_tokens


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
  """One workload of one model, measured."""

  model: str
  shape: workloads.Shape
  rounds: measuring.Rounds
  metrics: dict[str, float]
  compiles: int
  options: dict[str, Any]  # peer -> what it ran with

  @property
  def drawn_tokens(self) -> int:
    return int(workloads.completion_lengths(self.shape).sum())

  @property
  def flops(self) -> float:
    arch = presets.ARCHITECTURES[self.model]
    return flops_lib.unique(self.shape).flops(arch)

  def device_share(self, program: str) -> float:
    """Of the wall clock, what `extend` (prefill) or `decode` takes."""
    wall_s = sum(t.wall_s for t in self.rounds.timings[_OURS])
    return self.metrics[f"{program}_s"] / wall_s

  @property
  def host_share(self) -> float:
    """Of the wall clock, what no device program accounts for."""
    return 1.0 - self.device_share("extend") - self.device_share("decode")


def run(
  *, models: Sequence[str], peer_names: Sequence[str], rounds: int
) -> report.Report:
  """Runs the suite.

  Args:
    models: of `MODELS`; the figures of the first are the report's.
    peer_names: of `peers.PEERS`.
    rounds: that count.

  Raises:
    UserError: an unknown model or peer, or a peer that is not installed.
  """
  peers.check_names("--models", models, MODELS)
  peers.check_names("--peers", peer_names, peers.PEERS)
  outcomes: dict[str, list[Outcome]] = {}
  for model in models:
    shapes = (workloads.agentflow(MODELS[model]), workloads.plain())
    outcomes[model] = [
      measure(model, shape, peer_names, rounds) for shape in shapes
    ]
  figures = {model: _figures(*found) for model, found in outcomes.items()}
  return report.Report(
    suite="rollout",
    figures=figures[models[0]] | {"models": figures},
    sections=[_section(o) for found in outcomes.values() for o in found],
  )


def measure(
  model: str, shape: workloads.Shape, peer_names: Sequence[str], rounds: int
) -> Outcome:
  """One workload of one model, all systems in turn."""
  with contextlib.ExitStack() as stack:
    ours = stack.enter_context(contextlib.closing(Rollouts(model, shape)))
    others = [
      stack.enter_context(peers.Peer(name, model, shape)) for name in peer_names
    ]
    with _counting_compiles() as compiled:

      def start() -> None:
        ours.metrics()
        compiled.clear()

      found = measuring.in_turn([ours, *others], rounds, on_start=start)
    return Outcome(
      model=model,
      shape=shape,
      rounds=found,
      metrics=ours.metrics(),
      compiles=len(compiled),
      options={peer.name: peer.option for peer in others},
    )


def _figures(agentflow: Outcome, plain: Outcome) -> dict[str, Any]:
  figures = {}
  for prefix, outcome in (("agentflow", agentflow), ("plain", plain)):
    for peer in peers.PEERS:
      figures[f"{prefix}_ratio_{peer}"] = (
        outcome.rounds.ratio(peer, _OURS).median
        if peer in outcome.options
        else None
      )
  share = agentflow.rounds.peak_share(_OURS, agentflow.flops)
  rate = agentflow.rounds.rate(_OURS, agentflow.drawn_tokens)
  return figures | {
    "prefill_over_unique": agentflow.metrics["prefill_computed_per_unique"],
    "flops_fraction": share.median,
    "host_share": agentflow.host_share,
    "compiles_after_warmup": agentflow.compiles + plain.compiles,
    "prefix_hit_rate": agentflow.metrics["prefix_hit_rate"],
    "tokens_per_s": rate.median,
    "plain_tokens_per_s": plain.rounds.rate(_OURS, plain.drawn_tokens).median,
  }


def _section(outcome: Outcome) -> report.Section:
  rounds, shape, metrics = outcome.rounds, outcome.shape, outcome.metrics
  rows = []
  for name, timings in rounds.timings.items():
    rows.append(
      {
        "system": name,
        "tokens/s": rounds.rate(name, outcome.drawn_tokens).text(0),
        "wall s": measuring.Spread.of(t.wall_s for t in timings).text(),
        "cpu s": measuring.Spread.of(t.cpu_s for t in timings).text(),
        "times ours": rounds.ratio(name, _OURS).text(),
        "ran with": report.compact(outcome.options.get(name, {})),
      }
    )
  share = rounds.peak_share(_OURS, outcome.flops)
  peak = measuring.Spread.of(x / 1e9 for x in rounds.gemm_flops)
  notes = [
    f"peak: {peak.text(0)} GFLOP/s; unique tokens reach {share.text()} of it "
    f"({outcome.flops / 1e9:.0f} GFLOP)",
    f"prefill share {outcome.device_share('extend'):.3f}, decode share "
    f"{outcome.device_share('decode'):.3f}, host share "
    f"{outcome.host_share:.3f}, {outcome.compiles} compiles after warm-up",
    *(f"{name} {metrics[name]:.3f}" for name in _SHOWN),
  ]
  return report.Section(
    title=f"{outcome.model}, {shape.name}: {shape.tasks} tasks x "
    f"{shape.members} members x {shape.turns} turns, prompts "
    f"{shape.prompt_tokens(0)}-{shape.prompt_tokens(shape.turns - 1)}, "
    f"completions {shape.completion_tokens[0]}-{shape.completion_tokens[1]}",
    rows=rows,
    notes=notes,
  )


_SHOWN = (
  "prefill_tokens_per_s",
  "decode_tokens_per_s",
  "occupancy",
  "prefix_hit_rate",
  "shared_context",
  "prefill_computed_per_unique",
  "queue_age_p50_s",
  "queue_age_p99_s",
)


def _random_params(arch, mesh):
  on_mesh = sharding.param_shardings(arch, mesh)
  make = jax.jit(
    lambda key: transformer.init_params(arch, key), out_shardings=on_mesh
  )
  return make(jax.random.key(0))


@contextlib.contextmanager
def _counting_compiles() -> Iterator[list[str]]:
  """A list that grows with every program this process compiles."""
  compiled: list[str] = []

  def listen(event: str, duration_secs: float, **_: str | int) -> None:
    del duration_secs
    if "backend_compile" in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
