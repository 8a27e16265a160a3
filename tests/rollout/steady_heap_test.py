"""What exists at the beginning is not walked; what comes later is collected."""

import gc
import weakref

import pytest

from agentflow_jax.rollout import steady_heap


class _Ring:
  def __init__(self):
    self.itself = self


def test_only_the_blocks_own_garbage_is_collected():
  before = _Ring()
  kept = weakref.ref(before)
  assert gc.get_freeze_count() == 0
  with steady_heap.steady_heap():
    assert gc.get_freeze_count() > 1000
    own = weakref.ref(_Ring())
    del before
    gc.collect()
    assert own() is None and kept() is not None
  assert gc.get_freeze_count() == 0
  gc.collect()
  assert kept() is None


def test_an_error_ends_it_too():
  with pytest.raises(KeyError), steady_heap.steady_heap():
    raise KeyError
  assert gc.get_freeze_count() == 0
