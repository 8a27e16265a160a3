"""Other systems, each in a process of its own with our environment.

Flow: `Peer.start` runs this file as a module in a subprocess, which builds the
peer's model (random parameters of the same shape), tries the peer's own options
on the longest turn, or on one step, and keeps the fastest; `Peer.run` asks for
one pass and gets its timing back. Parent and child speak JSON, one line each
way.

A process of its own keeps thread pools, memory and the device apart; it sleeps
while others are measured.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from absl import logging

from agentflow_jax.benchmarks import measuring, train_workload, workloads
from agentflow_jax.core import errors
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import presets

# Name on the command line -> (module with `load`, package it needs).
PEERS = {
  "hf": ("agentflow_jax.benchmarks.peer_hf", "torch"),
  "tunix": ("agentflow_jax.benchmarks.peer_tunix", "tunix"),
}
TRAIN_PEERS = {
  "torch": ("agentflow_jax.benchmarks.peer_torch_train", "torch"),
  "tunix": ("agentflow_jax.benchmarks.peer_tunix_train", "tunix"),
}


class Model(Protocol):
  """A peer's model that draws, in the peer's process."""

  def options(self, shape: workloads.Shape) -> list[dict[str, Any]]:
    """Ways to run a turn, of which the fastest is used."""
    ...

  def generate(self, calls: list[workloads.Call], **option: Any) -> list[int]:
    """Draws a turn; the number of tokens drawn for each call."""
    ...


@runtime_checkable
class Trainer(Protocol):
  """A peer's model that learns, in the peer's process."""

  def options(self, shape: workloads.Shape) -> list[dict[str, Any]]:
    """Ways to take a step, of which the fastest is used."""
    ...

  def step(
    self, found: list[train_workload.TrainingSample], **option: Any
  ) -> float:
    """One optimizer step on all samples; the gradient's norm."""
    ...


class Peer:
  """A measured peer; see `measuring.System`.

  Example:
    with Peer("hf", "bench_tiny", workloads.plain()) as peer:
      peer.run(seed=0).wall_s
  """

  def __init__(
    self,
    kind: str,
    model: str,
    shape: workloads.Shape,
    table: Mapping[str, tuple[str, str]] | None = None,
  ):
    """Starts the process and waits until the peer is tuned.

    Args:
      kind: a name in `table`.
      model: of `presets.ARCHITECTURES`.
      shape: the workload.
      table: `PEERS` if None.

    Raises:
      UserError: the peer's package is not installed.
      EngineError: the process failed.
    """
    module, package = (PEERS if table is None else table)[kind]
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(
        f"--peers={kind} needs {package}: pip install 'agentflow_jax[bench]'"
      )
    self.name = kind
    sizes = json.dumps(dataclasses.asdict(shape))
    self._process = subprocess.Popen(
      [sys.executable, "-m", __name__, module, model, sizes],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.option = self._answer()["option"]
    logging.info("%s runs with %s", kind, self.option)

  def __enter__(self) -> "Peer":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def run(self, seed: int) -> measuring.Timing:
    assert self._process.stdin is not None
    self._process.stdin.write(f"{json.dumps({'seed': seed})}\n")
    self._process.stdin.flush()
    return measuring.Timing(**self._answer())

  def close(self) -> None:
    """Ends the process: it leaves when its input does."""
    assert self._process.stdin is not None
    self._process.stdin.close()
    self._process.wait()

  def _answer(self) -> dict[str, Any]:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      code = self._process.wait()
      raise errors.EngineError(
        f"the process of peer {self.name!r} ended with code {code}"
      )
    return json.loads(line)


def check_names(
  flag: str, names: Sequence[str], known: Mapping[str, Any]
) -> None:
  """Raises UserError where a name is not known."""
  unknown = [name for name in names if name not in known]
  if unknown:
    raise errors.UserError(
      f"{flag}: {', '.join(unknown)} is unknown; choose from {', '.join(known)}"
    )


def batch_sizes(rows: int) -> list[int]:
  """Worth a try: all rows of a turn at once, halves, quarters."""
  return sorted({max(1, rows // share) for share in (1, 2, 4)}, reverse=True)


def _serve(module_name: str, model_name: str, shape: workloads.Shape) -> None:
  """The child: tunes, then answers one line per line."""
  # Libraries print to stdout; the protocol keeps the pipe to itself.
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)
  arch = presets.ARCHITECTURES[model_name]
  module = importlib.import_module(module_name)
  before_bytes = measuring.resident_bytes("VmRSS")
  model: Model | Trainer = module.load(arch)
  option = _fastest(model, arch, shape)
  _say(answers, {"option": option})
  for line in sys.stdin:
    measuring.forget_peak()
    timing = _pass(model, arch, shape, json.loads(line)["seed"], option)
    peak_bytes = max(0, measuring.resident_bytes("VmHWM") - before_bytes)
    _say(answers, dataclasses.asdict(timing) | {"peak_bytes": peak_bytes})


def _shape(text: str) -> workloads.Shape:
  fields = json.loads(text)
  fields["completion_tokens"] = tuple(fields["completion_tokens"])
  return workloads.Shape(**fields)


def _fastest(
  model: Model | Trainer,
  arch: architecture_lib.Architecture,
  shape: workloads.Shape,
) -> dict[str, Any]:
  """The option that takes least time, compiles aside."""
  took: list[tuple[float, dict[str, Any]]] = []
  seed = -1 % 2**32
  for option in model.options(shape):
    _pass(model, arch, shape, seed, option, trial=True)
    timing = _pass(model, arch, shape, seed, option, trial=True)
    took.append((timing.wall_s, option))
    logging.info("%s takes %.2f s", option, timing.wall_s)
  return min(took, key=lambda entry: entry[0])[1]


def _pass(
  model: Model | Trainer,
  arch: architecture_lib.Architecture,
  shape: workloads.Shape,
  seed: int,
  option: dict[str, Any],
  *,
  trial: bool = False,
) -> measuring.Timing:
  """All turns or one step; for a trial the last turn or a step of one task."""
  if isinstance(model, Trainer):
    shape = dataclasses.replace(shape, tasks=1) if trial else shape
    found = train_workload.samples(shape, arch.vocab_size, seed)
    return measuring.timed(lambda: _step(model, found, option))
  turns = workloads.calls(shape, arch.vocab_size, seed)
  turns = turns[-1:] if trial else turns
  return measuring.timed(lambda: _generate(model, turns, option))


def _step(
  model: Trainer,
  found: list[train_workload.TrainingSample],
  option: dict[str, Any],
) -> None:
  norm = model.step(found, **option)
  if not 0 < norm < float("inf"):
    raise errors.EngineError(f"a step's gradient has norm {norm}")


def _generate(
  model: Model, turns: Sequence[list[workloads.Call]], option: dict[str, Any]
) -> None:
  option = dict(option)
  size = option.pop("batch")
  for turn in turns:
    for batch in workloads.batches(turn, size):
      drawn = model.generate(batch, **option)
      asked = [call.completion_tokens for call in batch]
      if any(a < b for a, b in zip(drawn, asked, strict=True)):
        raise errors.EngineError(f"asked for {asked} tokens, got {drawn}")


def _say(answers, message: dict[str, Any]) -> None:
  answers.write(f"{json.dumps(message)}\n")
  answers.flush()


if __name__ == "__main__":
  logging.set_verbosity(logging.INFO)
  _serve(sys.argv[1], sys.argv[2], _shape(sys.argv[3]))
