"""Made-up words, from syllables that can be read aloud."""

import random

_STARTS = (*"bcdfghjklmnprstvz", "br", "dr", "gl", "kr", "sh", "st", "th", "tr")
_VOWELS = (*"aeiou", "ai", "ea", "ia", "ou")
_ENDS = ("", "", *"lmnrstx", "nd", "rn", "st")
_MAX_SYLLABLES = 3


def word(rng: random.Random) -> str:
  """One to three syllables, capitalised: "Kraino"."""
  found = [
    rng.choice(_STARTS) + rng.choice(_VOWELS)
    for _ in range(rng.randint(1, _MAX_SYLLABLES))
  ]
  return ("".join(found) + rng.choice(_ENDS)).capitalize()
