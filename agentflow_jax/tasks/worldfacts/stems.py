"""Words of names as stems and endings: "Bogota" is "Bogo" and "ta".

The laptop planner's tokenizer cuts names there, so that a name which training
never shows is still made of tokens that it does show: made-up names are the
stems of all real names, held-out ones too, before endings of other names.
Without that, tokens of held-out names would be those that never were targets,
or never the end of a name, and the planner would treat them accordingly.
"""

import collections
import random
import re
from collections.abc import Iterable

ENDING_LETTERS = 2
_CUT = re.compile(rf"[A-Z][a-z]*(?=[a-z]{{{ENDING_LETTERS}}}$)")
_WORD = re.compile(r"[A-Za-z]+")
# A word that so many names have, like "Mount", says what a name looks like.
_COMMON = 4


class NameMaker:
  """Makes names out of the parts of others.

  Example: `NameMaker(["Bogota", "Laos"])` makes "Bogoos" of "Bogota", and of
  "Duchy of Savoy" perhaps "Lata of Bogoos".
  """

  def __init__(self, names: Iterable[str]):
    """
    Args:
      names: of real things; a word without an ending gives no part.
    """
    names = tuple(names)
    counts = collections.Counter(
      word for name in names for word in _WORD.findall(name)
    )
    common = {word for word, count in counts.items() if count >= _COMMON}
    cuts = [
      (match[0], word[match.end() :])
      for word in sorted(counts)
      if (match := _CUT.match(word))
    ]
    self._known = frozenset(counts)
    # A common word that is a name itself ("Guinea") may be held out.
    self.common = frozenset(common.difference(names))
    self.stems = tuple(dict.fromkeys(stem for stem, _ in cuts))
    self.endings = tuple(sorted({ending for _, ending in cuts}))
    self._endings_as_often = [ending for _, ending in cuts]

  def word(self, rng: random.Random) -> str:
    """A word that none of the names has."""
    while True:
      word = rng.choice(self.stems) + rng.choice(self._endings_as_often)
      if word not in self._known:
        return word

  def name(self, rng: random.Random, old: str) -> str:
    """A name that looks like `old`: small and common words are kept."""
    words = old.split()
    new = [
      word if word.islower() or word in self.common else self.word(rng)
      for word in words
    ]
    if new == words:
      new[-1] = self.word(rng)
    return " ".join(new)
