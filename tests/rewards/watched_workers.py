"""Looks at worker processes: what they used, and whether they are gone."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from unittest import mock

from agentflow_jax.rewards import worker_pool


@dataclasses.dataclass(frozen=True)
class Ended:
  """A worker that was killed, and what its last request had used."""

  pid: int
  cpu_s: float

  def is_gone(self) -> bool:
    """No process and no zombie has its number."""
    try:
      os.kill(self.pid, 0)
    except ProcessLookupError:
      return True
    return False


@dataclasses.dataclass
class Watch:
  """Processor time of every request, and the workers that ended."""

  cpu_s: list[float] = dataclasses.field(default_factory=list)
  ended: list[Ended] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
  """Watches every pool of this process while the block runs."""
  watch = Watch()
  began: dict[int, float] = {}
  worker = worker_pool._Worker
  ask, kill = worker.ask, worker.kill

  def ask_and_look(self, *arguments):
    began[self._process.pid] = self.cpu_s()
    try:
      return ask(self, *arguments)
    finally:
      # A dead process that nobody has waited for still tells.
      watch.cpu_s.append(self.cpu_s() - began[self._process.pid])

  def kill_and_look(self):
    pid = self._process.pid
    used_s = self.cpu_s() - began.get(pid, 0.0)
    status = kill(self)
    watch.ended.append(Ended(pid, used_s))
    return status

  with (
    mock.patch.object(worker, "ask", ask_and_look),
    mock.patch.object(worker, "kill", kill_and_look),
  ):
    yield watch
