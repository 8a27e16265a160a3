"""Continuous batching: the device state and what one round does with it.

Flow of a round: take what arrived, drop what was cancelled or is late, admit
first come first served, then run one dispatch: queued prefill if there is any,
else decode. Prefill goes first, so that what waits for it decodes together with
the rest. Rows that ended leave their slot before the next round, and the rows
that stay are moved together when that empties a decode group. A decode dispatch
has one window of steps, and twice as many as the last while nothing arrives.

Synchronous and owned by one thread at a time; `metrics` alone may be called
from another. Knows nothing of event loops.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Iterable
from typing import Any

import jax
from absl import logging

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.sampler import compaction, layout, sharing
from agentflow_jax.sampler import metrics as metrics_lib
from agentflow_jax.sampler import programs as programs_lib
from agentflow_jax.sampler import rows as rows_lib
from agentflow_jax.sampler import scheduler as scheduler_lib

FinishReason = engine_lib.FinishReason
Ticket = rows_lib.Ticket


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
  """A ticket that left, with `ticket.tokens` final."""

  ticket: Ticket
  reason: FinishReason


class Batcher:
  """Turns tickets into finished tickets, one dispatch per round."""

  def __init__(
    self,
    programs: programs_lib.Programs,
    rows: rows_lib.Rows,
    scheduler: scheduler_lib.Scheduler,
    params: Any,
  ):
    self._programs = programs
    self._rows = rows
    self._scheduler = scheduler
    self._params = params
    self._cache: Any = None
    self._shares: bool | None = None  # None: not tried yet
    self._windows = 1  # of the next decode dispatch
    self._waiting: collections.deque[Ticket] = collections.deque()
    self._lock = threading.Lock()  # counters and prompts
    self._counters = metrics_lib.Counters()
    self._distinct = metrics_lib.DistinctPrompts()

  @property
  def busy(self) -> bool:
    """Whether a round would find anything to do."""
    return bool(self._waiting or self._rows.occupied or self._scheduler.pending)

  def warm_up(self) -> None:
    """Compiles the programs once, and allocates the cache if there is none."""
    self._programs.compile(self._params)
    if self._cache is None:
      self._cache = self._programs.new_cache()
    if self._shares is None:
      self._try_sharing()

  def _try_sharing(self) -> None:
    self._shares = False
    if self._programs.geometry.shares:
      self._cache, self._shares = sharing.keeps_bits(
        self._programs, self._params, self._cache
      )
      if not self._shares:
        logging.info(
          "prefixes that rows share are read row by row: reading them once "
          "would change bits on this backend"
        )

  def update_params(self, params: Any) -> None:
    """Swaps the parameters and forgets every cached prefix.

    Raises:
      RuntimeError: requests are under way.
    """
    if self.busy:
      raise RuntimeError("parameters can only change while nothing is sampled")
    self._scheduler.forget()
    self._params = params
    # Stale numbers are only masked, and 0 * NaN is NaN: parameters that
    # overflowed must not leave anything behind.
    self._cache = None
    with self._lock:
      self._distinct.clear()

  def metrics(self, *, reset: bool) -> dict[str, float]:
    with self._lock:
      summary = self._counters.summary()
      if reset:
        self._counters = metrics_lib.Counters()
        self._distinct.clear()
    return {**summary, "compiles": float(self._programs.compiles)}

  def open_tickets(self) -> list[Ticket]:
    return [*(ticket for _, ticket in self._rows.active()), *self._waiting]

  def round(self, arrived: Iterable[Ticket]) -> list[Finished]:
    """Runs one round; returns the tickets that ended in it."""
    self._waiting.extend(arrived)  # first: whoever is lost is never answered
    self.warm_up()
    if self._waiting:
      self._windows = 1
    finished = self._drop()
    self._admit()
    if not self._scheduler.pending:
      self._compact()
    if self._scheduler.pending:
      self._extend()
    elif self._rows.occupied:
      finished += self._decode()
    return finished

  def _drop(self) -> list[Finished]:
    """Removes cancelled and late tickets, waiting or decoding."""
    finished = []

    def leaves(ticket: Ticket) -> bool:
      if ticket.cancelled:
        reason = FinishReason.CANCELLED
      elif ticket.request.deadline.passed:
        reason = FinishReason.DEADLINE
      else:
        return False
      finished.append(Finished(ticket=ticket, reason=reason))
      return True

    for slot, ticket in list(self._rows.active()):
      if leaves(ticket):
        self._free(slot)
    self._waiting = collections.deque(
      ticket for ticket in self._waiting if not leaves(ticket)
    )
    with self._lock:
      for item in finished:
        self._counters.cancelled += item.reason == FinishReason.CANCELLED
        self._counters.deadline += item.reason == FinishReason.DEADLINE
    return finished

  def _admit(self) -> None:
    now_s = time.monotonic()
    while self._waiting:
      ticket = self._waiting[0]
      placement = self._scheduler.place(ticket.prompt, ticket.request.session)
      if placement is None:
        return
      self._waiting.popleft()
      self._rows.start(placement.slot, ticket)
      waited_s = now_s - ticket.arrived_s
      with self._lock:
        counters = self._counters
        counters.requests += 1
        counters.prompt_tokens += len(ticket.prompt)
        counters.kept_tokens += placement.kept
        counters.copied_tokens += placement.copied
        counters.computed_tokens += placement.computed
        counters.chunk_tokens += placement.padded
        counters.unique_tokens += self._distinct.add(ticket.prompt)
        counters.queue_ages_s.append(waited_s)

  def _compact(self) -> None:
    """Moves rows together; the exchanges are queued as operations."""
    geometry = self._programs.geometry
    moved = compaction.moves(
      self._rows.active_S,
      shards=geometry.shards,
      group_rows=geometry.group_rows,
    )
    for source, target in moved:
      tokens = int(self._rows.columns_S[source, layout.Row.CACHED])
      self._scheduler.swap(source, target, tokens)
      self._rows.swap(source, target)
    with self._lock:
      self._counters.moved_rows += len(moved)

  def _extend(self) -> None:
    arrays = self._scheduler.take_packed()
    started_s = time.monotonic()
    self._cache = self._programs.extend(self._params, self._cache, *arrays)
    jax.block_until_ready(self._cache)
    with self._lock:
      self._counters.extend_dispatches += 1
      self._counters.extend_s += time.monotonic() - started_s

  def _decode(self) -> list[Finished]:
    shared = 0
    if self._shares:
      prompts = ((slot, ticket.prompt) for slot, ticket in self._rows.active())
      shared = sharing.mark(
        self._rows.columns_S, prompts, self._programs.geometry
      )
    context = self._rows.cached_tokens
    started_s = time.monotonic()
    self._cache, tokens_TS, logprobs_TS, drawn_S = self._programs.decode(
      self._params,
      self._cache,
      self._next_windows(),
      self._rows.columns_S,
      self._rows.knobs_S,
    )
    device_s = time.monotonic() - started_s
    finished = []
    for slot, ticket, reason in self._rows.advance(
      tokens_TS, logprobs_TS, drawn_S
    ):
      self._free(slot)
      finished.append(Finished(ticket=ticket, reason=reason))
    with self._lock:
      counters = self._counters
      counters.decode_dispatches += 1
      counters.completion_tokens += int(drawn_S.sum())
      counters.context_tokens += context
      counters.shared_tokens += shared
      counters.row_steps += self._programs.row_steps(drawn_S)
      counters.decode_s += device_s
    return finished

  def _next_windows(self) -> int:
    """How many windows to run now; twice as many next time."""
    geometry = self._programs.geometry
    certain = -(-self._rows.certain_steps() // geometry.decode_steps)
    windows = min(self._windows, certain, geometry.windows)
    self._windows = 2 * windows
    return windows

  def _free(self, slot: int) -> None:
    self._rows.stop(slot)
    self._scheduler.release(slot)
