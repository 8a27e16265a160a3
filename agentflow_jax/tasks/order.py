"""The order in which a run asks its tasks: one integer is the whole state.

  position -> epoch and place in it -> the epoch's shuffle -> task index

`indices(position, count)` is a pure function of the seed, so a run resumes
from its position alone. Every epoch has every task once, in its own order.
Where a batch reaches over the end of an epoch, tasks of the next epoch are
moved within it, so that no batch has a task twice unless it is larger than
the source.

The shuffle sorts raw Philox words, whose stream numpy promises to keep: the
order is the same on every machine and in every version.
"""

import functools
import math

import numpy as np

_KEPT_EPOCHS = 4


class TaskOrder:
  """An endless, seeded order of `length` tasks in batches of `batch_size`.

  Example: `TaskOrder(600, seed=0, batch_size=32).indices(64, 32)` is the third
  batch.
  """

  def __init__(self, length: int, *, seed: int, batch_size: int):
    """Prepares the order; nothing is drawn yet.

    Args:
      length: how many tasks there are.
      seed: from 0; any two seeds give unrelated orders.
      batch_size: how many tasks are asked for at once.

    Raises:
      ValueError: there is nothing to order, or a negative seed.
    """
    if length < 1 or batch_size < 1 or seed < 0:
      raise ValueError(
        f"length ({length}) and batch_size ({batch_size}) must be at least 1, "
        f"seed ({seed}) at least 0"
      )
    self._length = length
    self._batch_size = batch_size
    self._seed = seed
    self._epoch = functools.lru_cache(_KEPT_EPOCHS)(self._make_epoch)

  def indices(self, position: int, count: int) -> list[int]:
    """Task indices at `position`, `position + 1`, ...

    Tasks are distinct if `position` is a multiple of the batch size and
    `count` is at most the batch size and the number of tasks.
    """
    if position < 0:
      raise ValueError(f"position is {position}, it must be >= 0")
    found = []
    for place in range(position, position + count):
      epoch, offset = divmod(place, self._length)
      found.append(int(self._epoch(epoch)[offset]))
    return found

  def _make_epoch(self, epoch: int) -> np.ndarray:
    """int64 [length]: the epoch's order.

    It depends on the end of the epoch before, and so on back to an epoch that
    starts with a batch. Filling a batch moves tasks among the first
    `batch_size` places only, so in a source of two batches the end of an epoch
    is that of its shuffle, and one step back is enough.
    """
    period = self._batch_size // math.gcd(self._length, self._batch_size)
    start = epoch - epoch % period
    if self._length >= 2 * self._batch_size:
      start = max(start, epoch - 1)
    order = self._permutation(start)
    for following in range(start + 1, epoch + 1):
      order = self._fill_batch(following, order)
    return order

  def _fill_batch(self, epoch: int, before: np.ndarray) -> np.ndarray:
    """The epoch's shuffle, started with tasks the open batch does not have."""
    order = self._permutation(epoch)
    begun = epoch * self._length % self._batch_size
    if not begun or self._batch_size > self._length:
      return order
    free = np.isin(order, before[-begun:], invert=True)
    first = np.flatnonzero(free)[: self._batch_size - begun]
    rest = np.delete(np.arange(self._length), first)
    return order[np.concatenate([first, rest])]

  def _permutation(self, epoch: int) -> np.ndarray:
    """int64 [length]: the epoch's shuffle."""
    key = np.array([self._seed, epoch], np.uint64)
    words = np.random.Philox(key=key).random_raw(self._length)
    return np.argsort(words, kind="stable")
