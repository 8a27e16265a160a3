"""Shows how a run is getting on, on stderr.

On a terminal a live display (iteration, phase, step, reward, accuracy per
family, turns, tool errors, tokens/s, time left); anywhere else, e.g. in CI, one
log line per iteration. It only shows: metrics are kept by metrics_writer.py.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text
from absl import logging

# (metric, label, how to write it); shown in this order where present.
_SHOWN = (
  ("step", "step", "{:.0f}"),
  ("reward", "reward", "{:.3f}"),
  ("accuracy", "accuracy", "{:.3f}"),
  ("turns", "turns", "{:.2f}"),
  ("tool_error_rate", "tool errors", "{:.1%}"),
  ("tokens_per_s", "tokens/s", "{:,.0f}"),
)
_FAMILY = ("accuracy/", "reward/")
# The time left is judged by the latest iterations: the first ones compile.
_RECENT = 10


class Progress:
  """One run's display.

  Example:
    progress = Progress()
    progress.start(100)
    progress.phase("rollout")
    progress.update({"iteration": 1, "step": 1, "reward": 0.31})
    progress.stop()
  """

  def __init__(
    self,
    *,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Decides by `file` (None is stderr) whether there is a terminal."""
    self._console = rich.console.Console(file=file or sys.stderr)
    self._clock = clock
    self._live: rich.live.Live | None = None
    self._log_stream: TextIO | None = None
    self._total = 0
    self._done = 0
    self._phase = ""
    self._phase_start = 0.0
    self._metrics: dict[str, float] = {}
    self._times: list[float] = []  # clock at the start and each iteration

  def start(self, total: int, done: int = 0) -> None:
    """Begins; `done` iterations were done by an earlier process."""
    self._total, self._done = total, done
    self._times = [self._clock()]
    if self._console.is_terminal:
      self._live = rich.live.Live(
        console=self._console,
        get_renderable=self._render,
        refresh_per_second=4,
        redirect_stdout=False,  # a script's result is no log line
      )
      self._live.start()
      # rich took over sys.stderr; log lines have to go above the display.
      handler = logging.get_absl_handler().python_handler
      self._log_stream, handler.stream = handler.stream, sys.stderr

  def phase(self, name: str) -> None:
    """What is going on now, e.g. "rollout" or "learn"."""
    self._phase, self._phase_start = name, self._clock()

  def update(self, metrics: Mapping[str, float]) -> None:
    """News of `metrics["iteration"]`, which counts from 1 once it is done.

    Metrics that are not given keep their last value. A second call for the
    same iteration (its evaluation) only adds to it.
    """
    if metrics["iteration"] > self._done:
      self._done = int(metrics["iteration"])
      self._times = [*self._times[-_RECENT:], self._clock()]
    self._metrics.update(metrics)
    if self._live is None:
      logging.info("%s", self.line())

  def stop(self) -> None:
    """Takes the display down, leaving its last state; may be repeated."""
    if self._live is None:
      return
    self._phase = ""
    logging.get_absl_handler().python_handler.stream = self._log_stream
    self._live.stop()
    self._live = None

  def line(self) -> str:
    """Everything in one line of plain text."""
    parts = [f"iteration {self._done}/{self._total}"]
    parts += [f"{label} {text}" for label, text in self._values()]
    if self._eta():
      parts.append(f"eta {self._eta()}")
    return ", ".join(parts)

  def _values(self) -> list[tuple[str, str]]:
    shown = [
      (label, form.format(self._metrics[name]))
      for name, label, form in _SHOWN
      if name in self._metrics
    ]
    families = [
      (name.replace("/", " ", 1), f"{value:.3f}")
      for name, value in sorted(self._metrics.items())
      if name.startswith(_FAMILY)
    ]
    return shown + families

  def _eta(self) -> str:
    """Time left as h:mm:ss, "" while nobody can know."""
    lengths = [
      b - a for a, b in zip(self._times, self._times[1:], strict=False)
    ]
    left = self._total - self._done
    if not lengths or left <= 0:
      return ""
    seconds = round(statistics.median(lengths) * left)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

  def _render(self) -> rich.console.RenderableType:
    bar = rich.progress_bar.ProgressBar(
      total=max(1, self._total), completed=self._done, width=30
    )
    head = rich.table.Table.grid(padding=(0, 2))
    head.add_row(
      rich.text.Text(f"iteration {self._done}/{self._total}", style="bold"),
      bar,
      rich.text.Text(f"eta {self._eta() or '-'}"),
      rich.text.Text(self._phase_text(), style="cyan"),
    )
    # Text, not markup: family names come from the tasks.
    values = rich.text.Text()
    for label, text in self._values():
      values.append(f"{label} ", style="dim").append(f"{text}  ")
    return rich.console.Group(head, values)

  def _phase_text(self) -> str:
    if not self._phase:
      return ""
    return f"{self._phase} {self._clock() - self._phase_start:.0f} s"
