"""The requests being decoded: one row per slot, and when a row ends.

Flow: `Rows.start` fills a slot's columns; after every decode dispatch
`Rows.advance` takes what was drawn, decides which rows ended and why, and
moves the others on. Pure host code: numpy, no jax, no threads.

Axes: S slot (= decode row), T decode step.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.sampler import layout
from agentflow_jax.sampler import request as request_lib

FinishReason = engine_lib.FinishReason
Row, Knob = layout.Row, layout.Knob
DecodeText = Callable[[Sequence[int]], str]


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
  """A request under way and where its answer goes.

  `cancelled` is set by the event loop, everything else by the worker.
  """

  request: request_lib.SampleRequest
  prompt: np.ndarray  # int32
  max_tokens: int
  future: asyncio.Future
  loop: asyncio.AbstractEventLoop
  arrived_s: float  # time.monotonic()
  cancelled: bool = False
  tokens: list[int] = dataclasses.field(default_factory=list)
  logprobs: list[float] = dataclasses.field(default_factory=list)


class Rows:
  """The decode batch as the device sees it, and the ticket of every row."""

  def __init__(
    self,
    slots: int,
    eos_ids: Sequence[int],
    decode_text: DecodeText | None,
  ):
    self.columns_S = np.zeros((slots, len(Row)), np.int32)
    self.knobs_S = np.zeros((slots, len(Knob)), np.float32)
    self._tickets: list[Ticket | None] = [None] * slots
    self._eos_ids = frozenset(eos_ids)
    self._decode_text = decode_text

  @property
  def occupied(self) -> bool:
    return any(ticket is not None for ticket in self._tickets)

  def active(self) -> Iterator[tuple[int, Ticket]]:
    """(slot, ticket) of every occupied row; rows may be stopped meanwhile."""
    for slot, ticket in enumerate(self._tickets):
      if ticket is not None:
        yield slot, ticket

  def start(self, slot: int, ticket: Ticket) -> None:
    """Puts a ticket whose prompt is (or will be) prefilled in a slot."""
    sampling = ticket.request.sampling
    row = self.columns_S[slot]
    row[Row.TOKEN] = ticket.prompt[-1]
    row[Row.CACHED] = len(ticket.prompt) - 1
    row[Row.DRAWN] = 0
    row[Row.LEFT] = ticket.max_tokens
    row[Row.TOP_K] = sampling.top_k
    row[Row.KEY_0 : Row.KEY_1 + 1] = np.asarray(
      ticket.request.key_words, np.uint32
    ).view(np.int32)
    knobs = self.knobs_S[slot]
    knobs[Knob.TEMPERATURE] = sampling.temperature
    knobs[Knob.TOP_P] = sampling.top_p
    knobs[Knob.MIN_P] = sampling.min_p
    self._tickets[slot] = ticket

  def stop(self, slot: int) -> None:
    """Empties a row; the device skips it from the next dispatch on."""
    self.columns_S[slot, Row.LEFT] = 0
    self._tickets[slot] = None

  def swap(self, a: int, b: int) -> None:
    """Exchanges two rows, because their slots were."""
    for array in (self.columns_S, self.knobs_S):
      array[[a, b]] = array[[b, a]]
    tickets = self._tickets
    tickets[a], tickets[b] = tickets[b], tickets[a]

  @property
  def active_S(self) -> np.ndarray:
    return self.columns_S[:, Row.LEFT] > 0

  @property
  def cached_tokens(self) -> int:
    """Of all active rows together."""
    return int(self.columns_S[self.active_S, Row.CACHED].sum())

  def certain_steps(self) -> int:
    """Steps until the first row may leave, if none draws an eos.

    1 if a row waits for a stop string, which only the host can see.
    """
    tickets = [ticket for _, ticket in self.active()]
    if any(ticket.request.sampling.stop for ticket in tickets):
      return 1
    return int(self.columns_S[self.active_S, Row.LEFT].min())

  def advance(
    self, tokens_TS: np.ndarray, logprobs_TS: np.ndarray, drawn_S: np.ndarray
  ) -> list[tuple[int, Ticket, FinishReason]]:
    """Takes one dispatch's tokens; the rows that ended, and why."""
    ended = []
    for slot, ticket in self.active():
      count = int(drawn_S[slot])
      before = len(ticket.tokens)
      ticket.tokens.extend(tokens_TS[:count, slot].tolist())
      ticket.logprobs.extend(logprobs_TS[:count, slot].tolist())
      reason = self._finish_reason(ticket, before)
      if reason is not None:
        ended.append((slot, ticket, reason))
        continue
      row = self.columns_S[slot]
      row[Row.TOKEN] = ticket.tokens[-1]
      row[Row.CACHED] += count
      row[Row.DRAWN] += count
      row[Row.LEFT] -= count
    return ended

  def _finish_reason(self, ticket: Ticket, before: int) -> FinishReason | None:
    """Why the ticket is done; cuts it at the token that ends a stop string."""
    stop = ticket.request.sampling.stop
    if stop and self._decode_text is not None:
      length = _stop_length(self._decode_text, ticket.tokens, before, stop)
      if length is not None:
        del ticket.tokens[length:], ticket.logprobs[length:]
        return FinishReason.STOP
    if ticket.tokens[-1] in self._eos_ids:
      return FinishReason.STOP
    if len(ticket.tokens) >= ticket.max_tokens:
      return FinishReason.LENGTH
    return None


def _stop_length(
  decode_text: DecodeText, tokens: list[int], before: int, stop: Sequence[str]
) -> int | None:
  """Tokens up to and including the one that completes a stop string."""

  def contains(count: int) -> bool:
    text = decode_text(tokens[:count])
    return any(end in text for end in stop)

  if not contains(len(tokens)):
    return None
  return next(
    count for count in range(before + 1, len(tokens) + 1) if contains(count)
  )
