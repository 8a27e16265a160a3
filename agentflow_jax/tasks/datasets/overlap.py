"""Questions that are in two sets: the same ones, and ones nearly the same.

Flow: question -> lower case words -> equal text is the same question; else
the 8-grams of words are compared by Jaccard's measure (shared / all of both),
through an index from gram to question, so that time grows with what is shared
and not with the product of the sets.

A question of less than 8 words is one gram, so short questions are only found
when they are equal.
"""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator

from agentflow_jax.core import task as task_lib

GRAM_WORDS = 8
NEAR = 0.5
# A gram of more questions than this is a template ("When ready, output ...").
_MAX_SHARED = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
  """One question of the one set that the other has, too.

  Example: `Overlap(task_id="nq/7", other_id="nq_dev/3", likeness=1.0)`.
  """

  task_id: str
  other_id: str
  likeness: float  # 1.0: equal up to case and punctuation

  @property
  def exact(self) -> bool:
    return self.likeness == 1.0


def normalise(question: str) -> str:
  """Words in lower case, one blank between them."""
  plain = unicodedata.normalize("NFKC", question).casefold()
  return " ".join(re.findall(r"\w+", plain))


class OverlapIndex:
  """The questions one must not train on.

  Example: `OverlapIndex(evaluation_tasks).find(train_tasks)`.
  """

  def __init__(self, tasks: Iterable[task_lib.Task], near: float = NEAR):
    """Indexes the set.

    Args:
      tasks: usually the evaluation's.
      near: the least Jaccard likeness that counts.
    """
    self._near = near
    self._equal: dict[str, str] = {}
    self._grams: list[frozenset[str]] = []
    self._ids: list[str] = []
    self._having: dict[str, list[int]] = collections.defaultdict(list)
    for task in tasks:
      text = normalise(task.question)
      self._equal.setdefault(text, task.id)
      grams = _grams(text)
      for gram in grams:
        self._having[gram].append(len(self._ids))
      self._ids.append(task.id)
      self._grams.append(grams)

  def find(self, tasks: Iterable[task_lib.Task]) -> Iterator[Overlap]:
    """For each of `tasks` that overlaps, its most similar question."""
    for task in tasks:
      found = self._find_one(task)
      if found is not None:
        yield found

  def _find_one(self, task: task_lib.Task) -> Overlap | None:
    text = normalise(task.question)
    if text in self._equal:
      return Overlap(task_id=task.id, other_id=self._equal[text], likeness=1.0)
    grams = _grams(text)
    shared: collections.Counter[int] = collections.Counter()
    for gram in grams:
      having = self._having.get(gram, ())
      if len(having) <= _MAX_SHARED:
        shared.update(having)
    best, other = 0.0, -1
    for index, count in shared.items():
      union = len(grams) + len(self._grams[index]) - count
      if count / union > best:
        best, other = count / union, index
    if best < self._near:
      return None
    # Equal grams of unequal texts: as near as it gets, but not the same.
    return Overlap(
      task_id=task.id, other_id=self._ids[other], likeness=min(best, 0.999)
    )


def _grams(text: str) -> frozenset[str]:
  words = text.split()
  last = max(1, len(words) - GRAM_WORDS + 1)
  return frozenset(
    " ".join(words[start : start + GRAM_WORDS]) for start in range(last)
  )
