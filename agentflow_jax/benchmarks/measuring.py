"""How systems are timed: in turn, beside the machine's own peak.

Flow: `in_turn` runs every system once per round (A B A B ...), after as many
uncounted rounds as asked; each round also measures the speed of a big matrix
product, so that a machine that is busy with other things slows the yardstick as
well. `Spread` sums rounds up; ratios are taken round by round.
"""

import dataclasses
import functools
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

_GEMM = 2048
_GEMM_REPEATS = 6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
  """One pass: wall clock, CPU seconds and memory of the system's process."""

  wall_s: float
  cpu_s: float
  peak_bytes: int = 0  # resident, beyond what lay there before the model; peers


class System(Protocol):
  """Something to be measured."""

  name: str

  def run(self, seed: int) -> Timing:
    """Does the whole workload once, with the tokens of this seed."""
    ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
  """Median, minimum and maximum of the rounds."""

  median: float
  low: float
  high: float

  @classmethod
  def of(cls, values: Iterable[float]) -> "Spread":
    found = list(values)
    return cls(median=statistics.median(found), low=min(found), high=max(found))

  def text(self, digits: int = 2) -> str:
    low, high = f"{self.low:.{digits}f}", f"{self.high:.{digits}f}"
    return f"{self.median:.{digits}f} ({low}-{high})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
  """Timings by system and the GEMM speed, one entry per round."""

  timings: Mapping[str, Sequence[Timing]]
  gemm_flops: Sequence[float]  # per second

  def ratio(self, slower: str, faster: str) -> Spread:
    """How many times longer `slower` took, round by round."""
    return Spread.of(
      a.wall_s / b.wall_s
      for a, b in zip(self.timings[slower], self.timings[faster], strict=True)
    )

  def rate(self, name: str, amount: float) -> Spread:
    """`amount` per second of wall clock."""
    return Spread.of(amount / timing.wall_s for timing in self.timings[name])

  def peak_share(self, name: str, flops: float) -> Spread:
    """Of the GEMM speed of the same round, for a pass of `flops`."""
    return Spread.of(
      flops / timing.wall_s / peak
      for timing, peak in zip(self.timings[name], self.gemm_flops, strict=True)
    )


def in_turn(
  systems: Sequence[System],
  rounds: int,
  *,
  warm_up: int = 1,
  on_start: Callable[[], None] = lambda: None,
) -> Rounds:
  """Runs every system once per round.

  Args:
    systems: in the order of a round.
    rounds: how many count.
    warm_up: how many come first and do not.
    on_start: called between the two.
  """
  timings: dict[str, list[Timing]] = {system.name: [] for system in systems}
  peaks: list[float] = []
  for number in range(warm_up + rounds):
    if number == warm_up:
      on_start()
    peak = gemm_flops()
    for system in systems:
      timing = system.run(seed=number)
      logging.info(
        "round %d of %d (%d warm-up): %s took %.2f s, %.2f s of CPU",
        number + 1,
        warm_up + rounds,
        warm_up,
        system.name,
        timing.wall_s,
        timing.cpu_s,
      )
      if number >= warm_up:
        timings[system.name].append(timing)
    if number >= warm_up:
      peaks.append(max(peak, gemm_flops()))
  return Rounds(timings=timings, gemm_flops=peaks)


def timed(function: Callable[[], None]) -> Timing:
  """One call of `function`."""
  wall_s, cpu_s = time.perf_counter(), time.process_time()
  function()
  return Timing(
    wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s
  )


def resident_bytes(name: str) -> int:
  """VmRSS (now) or VmHWM (at most so far) of this process; 0 if unknown."""
  status = pathlib.Path("/proc/self/status")
  if not status.exists():  # not Linux
    return 0
  lines = status.read_text(encoding="ascii").splitlines()
  found = [line.split() for line in lines if line.startswith(f"{name}:")]
  return int(found[0][1]) * 1024 if found else 0


def forget_peak() -> None:
  """Makes VmHWM start from now: trials of other options do not count."""
  clear = pathlib.Path("/proc/self/clear_refs")
  if clear.exists():
    clear.write_text("5", encoding="ascii")


def gemm_flops(size: int = _GEMM, dtype: str = "float32") -> float:
  """FLOP/s of a square matrix product on all devices, the best of a few."""
  product, x = _gemm(size, dtype)
  best = 0.0
  for _ in range(_GEMM_REPEATS):
    started_s = time.perf_counter()
    jax.block_until_ready(product(x, x))
    seconds = time.perf_counter() - started_s
    best = max(best, 2.0 * x.shape[0] * size**3 / seconds)
  return best


@functools.cache
def _gemm(size: int, dtype: str):
  """The compiled product and its operand: one matrix per device."""
  devices = jax.devices()
  mesh = jax.make_mesh(
    (len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  split = jax.NamedSharding(mesh, jax.P("data"))
  square = np.full((len(devices), size, size), 0.5, dtype)
  x = jax.device_put(square, split)
  product = jax.jit(jnp.matmul, out_shardings=split).lower(x, x).compile()
  return product, x


def environment() -> dict[str, str]:
  """What the numbers depend on and the reader can not see."""
  device = jax.devices()[0]
  return {
    "python": platform.python_version(),
    "jax": jax.__version__,
    "devices": f"{len(jax.devices())} x {device.device_kind}",
    "cores": str(os.cpu_count()),
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
  }
