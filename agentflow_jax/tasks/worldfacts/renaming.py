"""Renames everything in a trace, so that a planner learns to copy.

A small planner that only ever sees real names memorises them and fails on
names it has not seen. In a renamed trace every name is made up, the same one
wherever it stood: in the question, in the results and in the plans.
"""

import random
import re
from collections.abc import Callable, Sequence, Set

MakeName = Callable[[random.Random, str], str]

_NUMBER = re.compile(r"\b[0-9]{2,}\b")
# The turn's own number and the budget are the format's, not the world's.
_TURN = re.compile(r"^Turn \d+(?: of \d+|:)", re.MULTILINE)

_MAX_TRIES = 100


def rename(
  texts: Sequence[Sequence[str]],
  rng: random.Random,
  make_name: MakeName,
  *,
  numbers: bool = False,
) -> list[str]:
  """The texts of one trace with every name replaced, the same everywhere.

  Names are replaced in one pass, so a made-up name is never replaced again.

  Args:
    texts: all texts of the trace that show names, prompts and plans, each as
      `names.NameFinder.cut` cuts it.
    rng: where the new names come from.
    make_name: rng and an old name to a new one.
    numbers: also replaces numbers of two or more digits outside names by
      others of the same length.

  Returns:
    One text per text.

  Raises:
    ValueError: `make_name` gives no new names.
  """
  old_names = {name for pieces in texts for name in pieces[1::2]}
  trace = _Trace(rng, make_name, old_names)
  renamed = []
  for text in texts:
    pieces = list(text)
    pieces[1::2] = map(trace.new_name, pieces[1::2])
    if numbers:
      pieces[::2] = map(trace.with_new_numbers, pieces[::2])
    renamed.append("".join(pieces))
  return renamed


class _Trace:
  """What replaces what in one trace."""

  def __init__(
    self, rng: random.Random, make_name: MakeName, old_names: Set[str]
  ):
    self._rng = rng
    self._make_name = make_name
    self._taken = set(old_names)
    self._names: dict[str, str] = {}
    self._numbers: dict[str, str] = {}

  def new_name(self, old: str) -> str:
    """The name `old` has from now on, which no other thing has."""
    if old not in self._names:
      for _ in range(_MAX_TRIES):
        new = self._make_name(self._rng, old)
        if new not in self._taken:
          break
      else:
        raise ValueError(f"no new name for {old!r} in {_MAX_TRIES} tries")
      self._taken.add(new)
      self._names[old] = new
    return self._names[old]

  def with_new_numbers(self, text: str) -> str:
    """`text` with its numbers replaced, but for those of turn lines."""
    numbers = [
      _NUMBER.sub(self._new_number, part) for part in _TURN.split(text)
    ]
    pieces = [numbers[0]]
    for turn, part in zip(_TURN.findall(text), numbers[1:], strict=True):
      pieces += [turn, part]
    return "".join(pieces)

  def _new_number(self, match: re.Match[str]) -> str:
    old = match[0]
    if old not in self._numbers:
      first = str(self._rng.randint(1, 9))
      rest = (str(self._rng.randint(0, 9)) for _ in old[1:])
      self._numbers[old] = first + "".join(rest)
    return self._numbers[old]
