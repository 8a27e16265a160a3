"""Slot choice on hand-made schedules, and never stale keys on random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_jax.sampler import scheduler as scheduler_lib

_BLOCK = 4


def _scheduler(slots=3, shards=1):
  return scheduler_lib.Scheduler(
    slots=slots, shards=shards, block_tokens=_BLOCK, max_tokens=64
  )


def _place(scheduler, prompt, session) -> scheduler_lib.Placement:
  placement = scheduler.place(prompt, session)
  assert placement is not None
  return placement


def _ids(*ranges):
  """Token ids: `_ids((0, 8), (50, 53))` is 0..7 then 50..52."""
  return np.concatenate([np.arange(*r) for r in ranges]).astype(np.int32)


def _work(scheduler):
  """(slot, source, copied blocks, computed block) of everything queued."""
  done = []
  while scheduler.pending:
    for shard in scheduler.take_operations(2):
      done += [(o.slot, o.source, o.copy_blocks, o.block) for o in shard]
  return done


def test_a_first_prompt_is_computed_in_chunks():
  scheduler = _scheduler()
  placement = _place(scheduler, _ids((0, 9)), "a")
  assert (placement.slot, placement.computed, placement.padded) == (0, 9, 12)
  (operations,) = scheduler.take_operations(10)
  assert [o.block for o in operations] == [0, 1, 2]
  np.testing.assert_array_equal(operations[2].tokens, [8])
  assert not scheduler.pending


def test_a_session_extends_its_own_slot_in_whole_blocks():
  scheduler = _scheduler()
  first = _place(scheduler, _ids((0, 10)), "a")
  _place(scheduler, _ids((90, 95)), "b")
  _work(scheduler)
  scheduler.release(first.slot)
  # 10 tokens are known, which is two whole blocks.
  second = _place(scheduler, _ids((0, 10), (20, 26)), "a")
  assert second.slot == first.slot
  assert (second.kept, second.copied, second.computed) == (8, 0, 8)
  assert _work(scheduler) == [(0, 0, 0, 2), (0, 0, 0, 3)]


def test_the_same_prompt_again_needs_nothing_not_even_its_tail():
  scheduler = _scheduler()
  first = _place(scheduler, _ids((0, 10)), "a")
  _work(scheduler)
  scheduler.release(first.slot)
  again = _place(scheduler, _ids((0, 10)), "a")
  assert (again.slot, again.kept, again.computed) == (first.slot, 10, 0)
  assert not scheduler.pending


def test_members_that_arrive_together_fork_the_first_ones_prefill():
  scheduler = _scheduler(slots=3)
  prompt = _ids((0, 10))
  placements = [_place(scheduler, prompt, member) for member in range(3)]
  assert [p.computed for p in placements] == [10, 0, 0]
  assert [p.copied for p in placements] == [0, 10, 10]
  # In one queue, so the copies come after what they copy.
  assert _work(scheduler) == [
    (0, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 0, 0, 2),
    (1, 0, 3, -1),
    (2, 0, 3, -1),
  ]


def test_a_fork_copies_whole_blocks_and_computes_the_rest():
  scheduler = _scheduler()
  _place(scheduler, _ids((0, 10)), "a")
  _work(scheduler)
  placement = _place(scheduler, _ids((0, 7), (30, 35)), "b")
  assert (placement.copied, placement.computed) == (4, 8)
  assert _work(scheduler) == [(1, 0, 1, 1), (1, 0, 0, 2)]


def test_a_longer_match_elsewhere_beats_the_sessions_slot():
  scheduler = _scheduler()
  first = _place(scheduler, _ids((0, 4)), "a")
  _place(scheduler, _ids((0, 16)), "b")
  _work(scheduler)
  scheduler.release(first.slot)
  placement = _place(scheduler, _ids((0, 16), (40, 42)), "a")
  assert placement.slot == first.slot  # its own slot, filled by a copy
  assert (placement.kept, placement.copied) == (0, 16)


def test_without_a_match_the_least_recently_used_slot_is_taken():
  scheduler = _scheduler()
  for session, start in (("a", 0), ("b", 100), ("c", 200)):
    _place(scheduler, _ids((start, start + 6)), session)
  _work(scheduler)
  for slot in (1, 2, 0):
    scheduler.release(slot)
  assert _place(scheduler, _ids((300, 306)), "d").slot == 1
  # Being copied from counts as use: "c" (slot 2) is kept, "a" is evicted.
  placement = _place(scheduler, _ids((200, 205), (400, 404)), "e")
  assert (placement.slot, placement.copied) == (0, 4)


def test_no_free_slot_is_none_and_changes_nothing():
  scheduler = _scheduler(slots=1)
  placement = _place(scheduler, _ids((0, 6)), "a")
  _work(scheduler)
  assert scheduler.place(_ids((0, 6)), "b") is None
  scheduler.release(placement.slot)
  assert _place(scheduler, _ids((0, 6)), "b").kept == 6


def test_forget_drops_all_contents_and_refuses_while_busy():
  scheduler = _scheduler()
  placement = _place(scheduler, _ids((0, 10)), "a")
  with pytest.raises(RuntimeError):
    scheduler.forget()
  _work(scheduler)
  scheduler.release(placement.slot)
  scheduler.forget()
  assert _place(scheduler, _ids((0, 10)), "a").computed == 10


def test_shards_share_load_and_never_copy_across():
  scheduler = _scheduler(slots=4, shards=2)
  prompt = _ids((0, 16))
  slots = [_place(scheduler, prompt, member).slot for member in range(4)]
  # Copying costs no chunk: the second member joins the first one's shard, and
  # only the third, for which there is no slot left, computes the prompt again.
  assert sorted(slots) == [0, 1, 2, 3]
  shards = scheduler.take_operations(100)
  assert [len(s) for s in shards] == [5, 5]
  assert all(o.slot < 2 and o.source < 2 for s in shards for o in s)


def test_a_session_stays_on_its_shard_though_the_other_is_done_first():
  scheduler = _scheduler(slots=4, shards=2)
  home = _place(scheduler, _ids((0, 8)), "a").slot
  other = _place(scheduler, _ids((0, 8), (20, 24)), "b")  # copies, same shard
  assert (home, other.slot) == (0, 1)
  _work(scheduler)
  scheduler.release(home)
  scheduler.release(other.slot)
  _place(scheduler, _ids((0, 8), (20, 24), (60, 80)), "b")  # five chunks wait
  again = _place(scheduler, _ids((0, 8), (30, 34)), "a")
  assert (again.slot, again.kept) == (home, 8)


def test_a_new_prompt_goes_to_the_shard_with_less_to_do():
  scheduler = _scheduler(slots=4, shards=2)
  assert _place(scheduler, _ids((0, 16)), "a").slot == 0
  assert _place(scheduler, _ids((100, 105)), "b").slot == 2
  assert _place(scheduler, _ids((200, 205)), "c").slot == 3


class _Device:
  """Slots as lists of "what this key was computed from"; None is stale."""

  def __init__(self, slots, tokens):
    self.cells = [[None] * tokens for _ in range(slots)]

  def run(self, operation, offset):
    cells = self.cells[offset + operation.slot]
    count = operation.copy_blocks * _BLOCK
    cells[:count] = self.cells[offset + operation.source][:count]
    if operation.block < 0:
      return
    start = operation.block * _BLOCK
    prefix = cells[start - 1] if start else ()
    for index in range(_BLOCK):
      if index < len(operation.tokens) and prefix is not None:
        prefix = (*prefix, int(operation.tokens[index]))
      else:
        prefix = None  # padding
      cells[start + index] = prefix

  def decode(self, slot, start):
    """What decode writes is never the bits of a prefill."""
    self.cells[slot][start:] = [None] * (len(self.cells[slot]) - start)


_PROMPTS = st.lists(
  st.tuples(
    st.lists(st.integers(0, 1), min_size=1, max_size=30),  # tokens
    st.integers(0, 4),  # session
    st.integers(0, 3),  # dispatches run before it
    st.integers(0, 3),  # requests that end before it
  ),
  min_size=1,
  max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(requests=_PROMPTS, shards=st.sampled_from([1, 2]))
def test_every_request_decodes_on_exactly_its_own_prefix(requests, shards):
  """Two-letter prompts share prefixes all the time; eviction is constant."""
  slots, tokens = 4, 64
  scheduler = _scheduler(slots=slots, shards=shards)
  device = _Device(slots, tokens)
  running = []  # (slot, prompt) whose operations may still be queued
  shared = 0

  def dispatch():
    for shard, operations in enumerate(scheduler.take_operations(3)):
      for operation in operations:
        device.run(operation, shard * slots // shards)

  def finish_all_prefill():
    while scheduler.pending:
      dispatch()
    for slot, prompt in running:
      for position in range(len(prompt)):
        assert device.cells[slot][position] == tuple(prompt[: position + 1])
      device.decode(slot, len(prompt))

  for prompt, session, dispatches, ended in requests:
    for _ in range(dispatches):
      dispatch()
    for _ in range(min(ended, len(running))):
      finish_all_prefill()
      scheduler.release(running.pop(0)[0])
    placement = scheduler.place(np.asarray(prompt, np.int32), session)
    assert (placement is None) == (len(running) == slots)
    if placement is not None:
      running.append((placement.slot, prompt))
      shared += placement.kept + placement.copied
      total = placement.kept + placement.copied + placement.computed
      assert total == len(prompt)
  finish_all_prefill()


def test_exchanged_slots_take_contents_and_sessions_along():
  scheduler = _scheduler(slots=4, shards=2)
  a = _place(scheduler, _ids((0, 9)), "a")
  b = _place(scheduler, _ids((20, 22)), "a2")
  _work(scheduler)
  scheduler.release(b.slot)
  shard = a.slot // 2
  free = next(i for i in (2 * shard, 2 * shard + 1) if i != a.slot)
  scheduler.swap(a.slot, free, tokens=14)  # five were decoded behind the nine
  (operation,) = scheduler.take_operations(9)[shard]
  assert (operation.slot, operation.source) == (free % 2, a.slot % 2)
  assert (operation.swap_blocks, operation.block) == (4, -1)
  # The slot that the busy row left is free, and the row's own is not.
  assert _place(scheduler, _ids((50, 60)), "c").slot != free
  scheduler.release(free)
  again = _place(scheduler, _ids((0, 9)), "a")
  assert (again.slot, again.kept) == (free, 9)
