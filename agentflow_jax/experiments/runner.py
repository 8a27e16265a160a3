"""Makes the runs of a plan, one after the other, and only what is missing.

A run that ended well leaves `experiment.json` with its identity, so starting
the experiment again passes over it. One that was stopped or killed is started
again and goes on from its own checkpoint. One that failed is a line that names
its log; what needs it is left out, and the others go on.
"""

import dataclasses
import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence

from agentflow_jax.core import printable
from agentflow_jax.evaluation.report import scales
from agentflow_jax.experiments import runs
from agentflow_jax.training import run_dir as run_dir_lib
from agentflow_jax.training import stop_signal

Say = Callable[[str], None]  # told of the progress, a line at a time
# (command, log file) -> exit code
Execute = Callable[[Sequence[str], pathlib.Path], int]

_MARK = "experiment.json"
_LOG = "experiment.log"
_POLL_S = 0.2
_MAX_LINE = 300
# What a launch script says that was asked to stop and saved.
_STOPPED = "STOPPED"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """Titles of the runs that are missing; whether somebody asked to stop."""

  missing: tuple[str, ...]
  stopped: bool


def is_finished(run: runs.Run) -> bool:
  """Whether it ended well, with these settings."""
  return _mark(run) == run.identity


def run_all(
  planned: Sequence[runs.Run],
  *,
  say: Say,
  stop: stop_signal.StopSignal,
  execute: Execute | None = None,
) -> Outcome:
  """Runs what is not finished, in order.

  Args:
    planned: each after those it needs.
    say: told when a run begins, and how it ended.
    stop: asked all the time; the run then saves and ends.
    execute: starts a program and waits for it; given by tests.
  """
  execute = execute or (lambda command, log: _execute(command, log, stop))
  clock = _Clock([run.kind for run in planned if not is_finished(run)])
  missing: dict[pathlib.Path, str] = {}
  for number, run in enumerate(planned, 1):
    place = f"[{number}/{len(planned)}] {run.title}"
    if is_finished(run):
      say(f"{place}: finished before")
      continue
    if absent := [missing[path] for path in run.needs if path in missing]:
      problem = f"left out, it needs: {absent[0]}"
    elif _mark(run):
      problem = (
        f"FAILED: {run.run_dir} holds a finished run with other settings; "
        "choose another --out"
      )
    else:
      say(f"{place}: started; {clock.text()}")
      problem = _make(run, execute, clock)
      if stop.requested:
        return Outcome(missing=tuple(missing.values()), stopped=True)
    clock.done(run.kind)
    if problem:
      missing[run.run_dir] = run.title
      say(f"{place}: {problem}")
  return Outcome(missing=tuple(missing.values()), stopped=False)


def _make(run: runs.Run, execute: Execute, clock: "_Clock") -> str:
  """Runs it; what went wrong, or ""."""
  log = run.run_dir / _LOG
  run.run_dir.mkdir(parents=True, exist_ok=True)
  started_s = time.monotonic()
  code = execute(run.command, log)
  last = _last_line(log)
  if code != 0 or last.startswith(_STOPPED):
    return f"FAILED (exit {code}): {last or 'no output'}; log: {log}"
  clock.took(run.kind, time.monotonic() - started_s)
  run_dir_lib.atomic_write(
    run.run_dir / _MARK, json.dumps({"identity": run.identity}) + "\n"
  )
  return ""


class _Clock:
  """Elapsed and remaining time, from runs of the same kind in this attempt."""

  def __init__(self, kinds: list[str]):
    self._started_s = time.monotonic()
    self._left = kinds
    self._seconds: dict[str, list[float]] = {}

  def took(self, kind: str, seconds: float) -> None:
    self._seconds.setdefault(kind, []).append(seconds)

  def done(self, kind: str) -> None:
    self._left.remove(kind)

  def text(self) -> str:
    elapsed = scales.duration(round(time.monotonic() - self._started_s))
    unknown = set(self._left) - set(self._seconds)
    if unknown:
      return f"elapsed {elapsed}, runs left {len(self._left)}"
    left = sum(
      sum(self._seconds[kind]) / len(self._seconds[kind]) for kind in self._left
    )
    return f"elapsed {elapsed}, about {scales.duration(round(left))} left"


def _execute(
  command: Sequence[str], log: pathlib.Path, stop: stop_signal.StopSignal
) -> int:
  """The exit code; a stop is passed on once, as SIGTERM."""
  with (
    open(log, "ab") as file,
    # A group of its own: Ctrl-C reaches it only through us, and once.
    subprocess.Popen(
      list(command),
      stdin=subprocess.DEVNULL,
      stdout=file,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    ) as process,
  ):
    told = False
    while (code := process.poll()) is None:
      if stop.requested and not told:
        process.terminate()
        told = True
      time.sleep(_POLL_S)
  return code


def _mark(run: runs.Run) -> str:
  """The identity of the run that ended well there, or ""."""
  try:
    text = (run.run_dir / _MARK).read_text(encoding="utf-8")
    return str(json.loads(text)["identity"])
  except (OSError, ValueError, KeyError, TypeError):
    return ""


def _last_line(log: pathlib.Path) -> str:
  try:
    text = log.read_bytes().decode("utf-8", "replace")
  except OSError:
    return ""
  lines = [line for line in text.splitlines() if line.strip()]
  return printable.spell_out(lines[-1])[:_MAX_LINE] if lines else ""
