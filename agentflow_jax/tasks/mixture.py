"""Mixture: several sources in fixed proportions, as one source.

Flow: parts (source, weight, limit) -> how many questions each gives -> which
ones -> one order in which every stretch has the proportions of the whole.

A mixture is as long as it can be without repeating a question: the source
that is short for its weight gives all it has, the others a seeded choice of
theirs. What is left out is logged. Everything is a function of the lengths,
so any number of workers reads the same order, and a run resumes from its
position alone (order.py).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from agentflow_jax.core import errors, protocols
from agentflow_jax.core import task as task_lib


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
  """A source and its share; `limit` = 0 uses all of it."""

  label: str
  source: protocols.TaskSource
  weight: float = 1.0
  limit: int = 0


class Mixture:
  """Implements core TaskSource over several sources.

  Ids start with the part's label, so no two parts share one.

  Example: parts of 100 and 300 questions with the weights 1 and 1 make 200
  questions, in turns.
  """

  def __init__(self, parts: Sequence[Part]):
    """Draws the order.

    Raises:
      ConfigError: there is no part, or one would give no question.
    """
    self._parts = tuple(parts)
    counts = quotas(
      [_size(part) for part in parts], [part.weight for part in parts]
    )
    for part, count in zip(parts, counts, strict=True):
      logging.info(
        "mixture: %d of %d questions of %s", count, _size(part), part.label
      )
      if not count:
        raise errors.ConfigError(
          f"the mixture has no question of {part.label}; its weight "
          f"{part.weight:g} is too small"
        )
    # int64 [N]: which part, and which question of it.
    self._part_N = interleave(counts)
    self._index_N = np.zeros(len(self._part_N), np.int64)
    for number, part in enumerate(parts):
      mine = self._part_N == number
      self._index_N[mine] = _chosen(_size(part), int(mine.sum()), number)

  def __len__(self) -> int:
    return len(self._part_N)

  def __getitem__(self, index: int) -> task_lib.Task:
    part = self._parts[self._part_N[index]]
    task = part.source[int(self._index_N[index])]
    return dataclasses.replace(task, id=f"{part.label}/{task.id}")

  @property
  def sources(self) -> tuple[protocols.TaskSource, ...]:
    return tuple(part.source for part in self._parts)


def quotas(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
  """Questions per source: proportional, without repeats, as many as possible.

  Example: quotas([100, 300], [1, 2]) is [100, 200].

  Raises:
    ConfigError: there is nothing to mix.
  """
  if not sizes or min(sizes) < 1:
    raise errors.ConfigError("a mixture needs sources with questions")
  scale = min(
    size / weight for size, weight in zip(sizes, weights, strict=True)
  )
  # The slack: 0.1 * 30 is a little below 3.
  return [
    min(size, int(scale * weight + 1e-9))
    for size, weight in zip(sizes, weights, strict=True)
  ]


def interleave(counts: Sequence[int]) -> np.ndarray:
  """int64 [N]: the part of each place; every part is spread evenly."""
  part_N = np.concatenate(
    [np.full(count, number, np.int64) for number, count in enumerate(counts)]
  )
  # The k-th of n questions of a part stands at (k + 1/2) / n of the whole.
  when_N = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
  return part_N[np.argsort(when_N, kind="stable")]


def _size(part: Part) -> int:
  return min(len(part.source), part.limit or len(part.source))


def _chosen(size: int, count: int, number: int) -> np.ndarray:
  """int64 [count]: which of `size` questions, ascending; the same always."""
  if count == size:
    return np.arange(size)
  key = np.array([size, number], np.uint64)
  words = np.random.Philox(key=key).random_raw(size)
  return np.sort(np.argsort(words, kind="stable")[:count])
