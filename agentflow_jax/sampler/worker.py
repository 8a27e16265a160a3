"""The thread that runs a batcher's rounds, so that coroutines keep running.

Flow: the event loop submits tickets and wakes the thread; the thread runs
rounds while there is work, posts every answer back to the loop it came from,
and sleeps otherwise. While it sleeps another thread may borrow the batcher
(`exclusive`), e.g. to change parameters.

If a round raises, its donated cache may be gone: the thread ends with the
traceback, and every open and later request fails with EngineError.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator

from absl import logging

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.sampler import batcher as batcher_lib
from agentflow_jax.sampler import rows as rows_lib

Ticket = rows_lib.Ticket


class Worker:
  """One daemon thread and the hand-over to and from it."""

  def __init__(self, batcher: batcher_lib.Batcher):
    self._batcher = batcher
    self._changed = threading.Condition()
    self._arrived: list[Ticket] = []
    self._working = False
    self._stopped = ""  # why nothing more is accepted
    self._thread = threading.Thread(
      target=self._run, name="sampler", daemon=True
    )
    self._thread.start()

  def submit(self, ticket: Ticket) -> None:
    """Hands a ticket over; the thread looks at it once woken.

    Raises:
      EngineError: the worker was stopped or failed.
    """
    with self._changed:
      self._check_accepting()
      self._arrived.append(ticket)

  def wake(self) -> None:
    with self._changed:
      self._changed.notify_all()

  @contextlib.contextmanager
  def exclusive(self) -> Iterator[batcher_lib.Batcher]:
    """The batcher, once the thread has nothing left to do.

    Raises:
      EngineError: the worker was stopped or failed.
    """
    with self._changed:
      self._changed.wait_for(lambda: self._stopped or not self._working)
      self._check_accepting()
      yield self._batcher

  def metrics(self, *, reset: bool) -> dict[str, float]:
    return self._batcher.metrics(reset=reset)

  def stop(self) -> None:
    """Ends the thread after its current dispatch; open requests fail."""
    with self._changed:
      self._stopped = self._stopped or "it was closed"
      self._changed.notify_all()
    self._thread.join()

  def _check_accepting(self) -> None:
    if self._stopped:
      raise errors.EngineError(f"the sampler can not answer: {self._stopped}")

  def _run(self) -> None:
    try:
      while True:
        with self._changed:
          self._working = self._batcher.busy
          self._changed.notify_all()
          self._changed.wait_for(
            lambda: self._stopped or self._arrived or self._batcher.busy
          )
          if self._stopped:
            return
          self._working = True
          arrived, self._arrived = self._arrived, []
        for finished in self._batcher.round(arrived):
          _post(finished.ticket, finished.reason)
    finally:
      self._abandon(sys.exception())

  def _abandon(self, cause: BaseException | None) -> None:
    with self._changed:
      if cause is not None:
        self._stopped = f"its thread failed with {cause!r}"
      arrived, self._arrived = self._arrived, []
      self._working = False
      self._changed.notify_all()
    for ticket in [*self._batcher.open_tickets(), *arrived]:
      _post(ticket, None, self._stopped)


def _post(
  ticket: Ticket, reason: engine_lib.FinishReason | None, failure: str = ""
) -> None:
  """Resolves the ticket's future on its own loop; None means it failed."""

  def resolve() -> None:
    if ticket.future.done():  # its coroutine was cancelled
      return
    if reason is None:
      ticket.future.set_exception(
        errors.EngineError(f"the sampler can not answer: {failure}")
      )
    else:
      ticket.future.set_result(reason)

  try:
    ticket.loop.call_soon_threadsafe(resolve)
  except RuntimeError:
    # The loop was closed with requests under way; nobody is left to answer.
    logging.warning("dropped an answer: its event loop is closed")
