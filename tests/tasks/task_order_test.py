"""Task order: pure in the position, complete epochs, no task twice a batch."""

import collections
import math

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.tasks import order

_SIZES = st.tuples(st.integers(1, 40), st.integers(1, 24))


def _batches(length, batch_size, count, seed=3):
  task_order = order.TaskOrder(length, seed=seed, batch_size=batch_size)
  return [task_order.indices(i * batch_size, batch_size) for i in range(count)]


@hypothesis.given(sizes=_SIZES, seed=st.integers(0, 2**63))
@hypothesis.settings(max_examples=100, deadline=None)
def test_no_task_twice_in_a_batch(sizes, seed):
  length, batch_size = sizes
  for batch in _batches(length, batch_size, 30, seed):
    repeats = max(collections.Counter(batch).values())
    # A batch larger than the source repeats, as evenly as two epochs' ends
    # allow.
    allowed = 1 if batch_size <= length else math.ceil(batch_size / length) + 1
    assert repeats <= allowed


@hypothesis.given(sizes=_SIZES)
@hypothesis.settings(max_examples=100, deadline=None)
def test_every_epoch_has_every_task_once(sizes):
  length, batch_size = sizes
  task_order = order.TaskOrder(length, seed=1, batch_size=batch_size)
  for epoch in range(5):
    indices = task_order.indices(epoch * length, length)
    assert sorted(indices) == list(range(length))


@hypothesis.given(
  sizes=_SIZES, start=st.integers(0, 400), count=st.integers(0, 30)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_position_can_be_resumed(sizes, start, count):
  """A new process that knows the position continues the same order."""
  length, batch_size = sizes
  whole = order.TaskOrder(length, seed=9, batch_size=batch_size).indices(0, 450)
  resumed = order.TaskOrder(length, seed=9, batch_size=batch_size)
  assert resumed.indices(start, count) == whole[start : start + count]


def test_a_far_position_is_found_without_walking_there():
  task_order = order.TaskOrder(10, seed=0, batch_size=7)
  batch = task_order.indices(7 * 10**9, 7)
  assert len(set(batch)) == 7


def test_epochs_and_seeds_differ():
  task_order = order.TaskOrder(50, seed=0, batch_size=10)
  first, second = task_order.indices(0, 50), task_order.indices(50, 50)
  assert first != second
  assert first != list(range(50))
  # Seed and epoch are not added up: epoch 1 of seed 0 is not epoch 0 of 1.
  other = order.TaskOrder(50, seed=1, batch_size=10)
  assert other.indices(0, 50) not in (first, second)


def test_places_are_uniform():
  """Task 0 is as likely to come first as any other."""
  firsts = collections.Counter(
    order.TaskOrder(5, seed=seed, batch_size=5).indices(0, 1)[0]
    for seed in range(2000)
  )
  assert sorted(firsts) == list(range(5))
  assert max(abs(n / 2000 - 0.2) for n in firsts.values()) < 0.04


def test_the_order_is_the_same_everywhere():
  """Stored numbers: they must not move with numpy or the machine."""
  indices = order.TaskOrder(8, seed=0, batch_size=3).indices(0, 12)
  assert indices == [0, 2, 1, 5, 4, 3, 6, 7, 5, 3, 7, 2]


@pytest.mark.parametrize(
  ("length", "seed", "batch_size"), [(0, 0, 1), (1, -1, 1), (1, 0, 0)]
)
def test_nothing_to_order_is_refused(length, seed, batch_size):
  with pytest.raises(ValueError, match="must be at least 1"):
    order.TaskOrder(length, seed=seed, batch_size=batch_size)


def test_a_negative_position_is_refused():
  with pytest.raises(ValueError, match="position is -1"):
    order.TaskOrder(3, seed=0, batch_size=1).indices(-1, 1)
