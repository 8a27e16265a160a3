"""Which slot serves a request, and what must be computed for it.

Flow: `place(prompt, session)` picks a slot, plans the operations that fill it
(reuse in place, or copy a prefix from another slot, then compute the missing
chunks) and appends them to the queue of the slot's shard; `take_operations`
(or, as arrays, `take_packed`) hands them out in order; `release` frees the slot
and leaves its prompt behind for reuse.

Only tokens computed by prefill count as a slot's content. Those keys and
values depend on nothing but the tokens up to there, because a chunk is always
computed alone and aligned; what decode wrote differs in bits and is never
reused. Planned content counts at once: a shard runs its operations in order,
so a second request with the same prefix copies what the first is about to
compute instead of computing it again.

Pure host code: no jax, no clock, no threads. Deterministic in the order of
calls.

Axes: P shard, R operation, C token of a chunk.
"""

import collections
import dataclasses
from collections.abc import Hashable

import numpy as np

from agentflow_jax.sampler import layout

Op = layout.Op


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
  """Copy or exchange, then compute; all within one shard.

  Example: slot 3 takes blocks 0-3 from slot 1 and computes its block 4:
  `Operation(slot=3, source=1, copy_blocks=4, block=4, tokens=...)`.
  """

  slot: int  # within its shard
  source: int = 0
  copy_blocks: int = 0
  swap_blocks: int = 0  # to exchange with the source
  block: int = -1  # chunk to compute; -1 = none
  tokens: np.ndarray  # int32, at most one chunk; empty if there is none


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
  """Where a request went, and where its prompt tokens come from.

  `kept + copied + computed` is the prompt's length.
  """

  slot: int  # of all shards
  kept: int  # found in the slot itself
  copied: int  # found in another slot
  computed: int
  padded: int  # tokens computed with the padding of the last chunk


@dataclasses.dataclass(slots=True)
class _Slot:
  """Bookkeeping of one slot; its tokens are a row of `_resident`."""

  busy: bool = False
  session: Hashable = None
  last_used: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
  """A candidate placement within one shard."""

  shard: int
  target: int
  source: int
  blocks: int  # found in `source`
  missing: int  # blocks to compute


class Scheduler:
  """Slots, their contents, and the queued operations of every shard.

  Example: after `place([1, 2, 3, 4, 5], "a")` with chunks of two tokens, the
  queue holds the chunks (1, 2), (3, 4) and (5,).
  """

  def __init__(
    self, *, slots: int, shards: int, block_tokens: int, max_tokens: int
  ):
    self._per_shard = slots // shards
    self._block_tokens = block_tokens
    self._slots = [_Slot() for _ in range(slots)]
    self._resident = np.full((slots, max_tokens), -1, np.int32)
    self._lengths = np.zeros((slots,), np.int64)
    self._queues: list[collections.deque[Operation]] = [
      collections.deque() for _ in range(shards)
    ]
    self._clock = 0

  @property
  def pending(self) -> bool:
    """Whether operations are queued."""
    return any(self._queues)

  @property
  def idle(self) -> bool:
    return not self.pending and not any(slot.busy for slot in self._slots)

  def place(self, prompt: np.ndarray, session: Hashable) -> Placement | None:
    """Claims a slot and queues its operations; None if no slot is free.

    The shard is the session's own, or the one with the least to do (`_cost`);
    within it the source is the longest match, and the target is the session's
    own slot if that is free, else the least recently used free slot.
    """
    plans = [
      plan
      for shard in range(len(self._queues))
      if (plan := self._plan(shard, prompt, session)) is not None
    ]
    if not plans:
      return None
    plan = min(plans, key=self._cost)
    return self._commit(plan, prompt, session)

  def release(self, slot: int) -> None:
    """Frees a slot; its prompt stays reusable and its operations still run."""
    self._slots[slot].busy = False
    self._touch(slot)

  def swap(self, a: int, b: int, tokens: int) -> None:
    """Exchanges two slots of one shard, with contents, sessions and all.

    `tokens` is how many there are in the fuller of the two, decoded ones
    included.
    """
    tokens = max(tokens, *self._lengths[[a, b]].tolist())
    first = self._range(a // self._per_shard).start
    self._queues[a // self._per_shard].append(
      Operation(
        slot=b - first,
        source=a - first,
        swap_blocks=-(-tokens // self._block_tokens),
        tokens=np.empty(0, np.int32),
      )
    )
    self._slots[a], self._slots[b] = self._slots[b], self._slots[a]
    for array in (self._resident, self._lengths):
      array[[a, b]] = array[[b, a]]

  def forget(self) -> None:
    """Drops all contents, because the parameters changed.

    Raises:
      RuntimeError: requests or operations are under way.
    """
    if not self.idle:
      raise RuntimeError("the slots are in use")
    self._lengths[:] = 0
    for slot in self._slots:
      slot.session = None

  def take_operations(self, limit: int) -> list[list[Operation]]:
    """Up to `limit` next operations of every shard, in order."""
    return [
      [queue.popleft() for _ in range(min(limit, len(queue)))]
      for queue in self._queues
    ]

  def take_packed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The next operations as `Programs.extend` takes them."""
    taken = self.take_operations(layout.OPERATIONS)
    return _pack(taken, self._block_tokens)

  def _touch(self, slot: int) -> None:
    self._clock += 1
    self._slots[slot].last_used = self._clock

  def _range(self, shard: int) -> range:
    return range(shard * self._per_shard, (shard + 1) * self._per_shard)

  def _free(self, shard: int) -> int:
    return sum(not self._slots[index].busy for index in self._range(shard))

  def _plan(
    self, shard: int, prompt: np.ndarray, session: Hashable
  ) -> _Plan | None:
    free = [i for i in self._range(shard) if not self._slots[i].busy]
    if not free:
      return None
    blocks = self._usable_blocks(shard, prompt)
    first = self._range(shard).start
    most = int(blocks.max())
    own = [i for i in free if self._slots[i].session == session]
    own.sort(key=lambda i: (-blocks[i - first], i))
    if own and blocks[own[0] - first] == most:
      source = target = own[0]
    else:
      source = first + int(blocks.argmax())
      target = own[0] if own else self._oldest(free, source if most else -1)
      source = source if most else target
    chunks = -(-len(prompt) // self._block_tokens)
    return _Plan(
      shard=shard,
      target=target,
      source=source,
      blocks=most,
      missing=chunks - most,
    )

  def _cost(self, plan: _Plan) -> tuple[bool, float, int]:
    """Less is better: home, then little to compute and a short queue.

    A session that finds its own slot stays: shards stay as balanced as the
    sessions are, and moving would compute its latest turns again. For others
    a waiting chunk counts half of one that is computed twice.
    """
    moves = not plan.blocks or plan.source != plan.target
    waiting = len(self._queues[plan.shard])
    return (moves, plan.missing + waiting / 2, plan.shard)

  def _oldest(self, free: list[int], source: int) -> int:
    """The least recently used free slot; the source only if it is the last."""
    return min(free, key=lambda i: (i == source, self._slots[i].last_used, i))

  def _usable_blocks(self, shard: int, prompt: np.ndarray) -> np.ndarray:
    """How many leading blocks of `prompt` each slot of the shard holds.

    A block counts if all its tokens match, or all that the prompt has do.
    """
    slots = self._range(shard)
    rows = slice(slots.start, slots.stop)
    count = len(prompt)
    equal = self._resident[rows, :count] == prompt
    matched = np.where(equal.all(axis=1), count, equal.argmin(axis=1))
    matched = np.minimum(matched, self._lengths[rows])
    whole = -(-count // self._block_tokens)
    return np.where(matched == count, whole, matched // self._block_tokens)

  def _commit(
    self, plan: _Plan, prompt: np.ndarray, session: Hashable
  ) -> Placement:
    size, count = self._block_tokens, len(prompt)
    first = self._range(plan.shard).start
    in_place = plan.source == plan.target
    copy_blocks = 0 if in_place else plan.blocks
    chunks = -(-count // size)
    queue = self._queues[plan.shard]
    ends_with_copy = [-1] if copy_blocks and plan.blocks == chunks else []
    for block in [*range(plan.blocks, chunks), *ends_with_copy]:
      tokens = prompt[block * size : (block + 1) * size] if block >= 0 else []
      queue.append(
        Operation(
          slot=plan.target - first,
          source=plan.source - first,
          copy_blocks=copy_blocks,
          block=block,
          tokens=np.asarray(tokens, np.int32),
        )
      )
      copy_blocks = 0
    self._touch(plan.source)
    self._touch(plan.target)
    slot = self._slots[plan.target]
    slot.busy, slot.session = True, session
    self._resident[plan.target, :count] = prompt
    self._lengths[plan.target] = count
    reused = min(plan.blocks * size, count)
    return Placement(
      slot=plan.target,
      kept=reused if in_place else 0,
      copied=0 if in_place else reused,
      computed=count - reused,
      padded=(chunks - plan.blocks) * size,
    )


def _pack(
  shards: list[list[Operation]], block_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(count_P, ops_PR, tokens_PRC), int32, for `Programs.extend`."""
  count_P = np.asarray([len(operations) for operations in shards], np.int32)
  limit = layout.OPERATIONS
  ops_PR = np.zeros((len(shards), limit, len(Op)), np.int32)
  ops_PR[:, :, Op.BLOCK] = -1
  tokens_PRC = np.zeros((len(shards), limit, block_tokens), np.int32)
  for shard, operations in enumerate(shards):
    for index, operation in enumerate(operations):
      row = ops_PR[shard, index]
      row[Op.SLOT] = operation.slot
      row[Op.SOURCE] = operation.source
      row[Op.COPY_BLOCKS] = operation.copy_blocks
      row[Op.BLOCK] = operation.block
      row[Op.SWAP_BLOCKS] = operation.swap_blocks
      tokens_PRC[shard, index, : len(operation.tokens)] = operation.tokens
  return count_P, ops_PR, tokens_PRC
