"""Finds known names in a text: whole words, the longest name first.

"the capital of West Virginia" holds West Virginia and not Virginia, and
"continent" does not hold Tin: case counts, and a name starts and ends where a
word does.
"""

import functools
import re
from collections.abc import Iterator, Sequence

from agentflow_jax.tasks.worldfacts import pages

_WORD = re.compile(r"\w+")


class NameFinder:
  """Looks up names by their words; linear in the text.

  Example: `[m[2] for m in NameFinder(["Laos"]).spans("Is Laos big?")]` is
  `["Laos"]`.
  """

  def __init__(self, names: Sequence[str]):
    by_first_word: dict[str, list[str]] = {}
    for name in names:
      first = _WORD.search(name)
      if first is None or first.start():
        raise ValueError(f"a name must start with a word: {name!r}")
      by_first_word.setdefault(first[0], []).append(name)
    self._candidates = {
      word: sorted(same, key=len, reverse=True)
      for word, same in by_first_word.items()
    }

  def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, name) of every name in `text`, in order, not overlapping."""
    end = 0
    for word in _WORD.finditer(text):
      start = word.start()
      if start < end:
        continue
      for name in self._candidates.get(word[0], ()):
        stop = start + len(name)
        if text.startswith(name, start) and not text[stop : stop + 1].isalnum():
          yield start, stop, name
          end = stop
          break

  def cut(self, text: str) -> tuple[str, ...]:
    """`text` in pieces, every other one a name: "Is ", "Laos", " big?"."""
    pieces = []
    end = 0
    for start, stop, name in self.spans(text):
      pieces += [text[end:start], name]
      end = stop
    return (*pieces, text[end:])

  def find(self, text: str) -> list[str]:
    """The distinct names in `text`, in the order they first occur."""
    return list(dict.fromkeys(name for _, _, name in self.spans(text)))


@functools.lru_cache(maxsize=1)
def known_names() -> NameFinder:
  """Finds the titles of all pages."""
  return NameFinder(pages.titles())
