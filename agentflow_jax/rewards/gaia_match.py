"""gaia: GAIA's rules (Mialon et al. 2023) for a number, a list or a text.

The reference decides the kind. A number: `$`, `%` and thousands commas are
dropped and values compared. A list (commas or semicolons): the same length,
and every element as a number or as a text. A text: without blanks,
punctuation and case.

Stricter than the original in two places: an answer with invisible characters
is wrong, and so are "nan" and "inf", which are numbers to Python's float.
"""

import re
import string
import unicodedata
from collections.abc import Sequence

_MAX_CHARS = 2000
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]{1,3})?")
_SEPARATOR = re.compile(r"[,;]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gaia(answer: str, references: Sequence[str]) -> bool:
  """True if `answer` is a reference by GAIA's rules.

  Example: gaia("$1,234", ("1234",)) and gaia("b , C", ("B, C",)) are True.
  """
  if len(answer) > _MAX_CHARS or not answer.strip() or _is_hidden(answer):
    return False
  return any(_matches(answer, reference) for reference in references)


def _matches(answer: str, reference: str) -> bool:
  wanted = _plain_number(reference)
  if wanted is not None:
    given = _plain_number(answer, symbols="$%,")
    return given is not None and given == wanted
  if _SEPARATOR.search(reference):
    wanted_items = _SEPARATOR.split(reference)
    given_items = _SEPARATOR.split(answer)
    return len(given_items) == len(wanted_items) and all(
      _same_item(one, other)
      for one, other in zip(given_items, wanted_items, strict=True)
    )
  wanted_text = _plain_text(reference).translate(_PUNCTUATION)
  given_text = _plain_text(answer).translate(_PUNCTUATION)
  return bool(wanted_text) and given_text == wanted_text


def _same_item(given: str, wanted: str) -> bool:
  number = _plain_number(wanted)
  if number is not None:
    return _plain_number(given, symbols="$%") == number
  return bool(_plain_text(wanted)) and _plain_text(given) == _plain_text(wanted)


def _plain_number(text: str, symbols: str = "") -> float | None:
  bare = text.strip().translate(str.maketrans("", "", symbols)).strip()
  return float(bare) if _NUMBER.fullmatch(bare.casefold()) else None


def _plain_text(text: str) -> str:
  return "".join(unicodedata.normalize("NFKC", text).split()).casefold()


def _is_hidden(text: str) -> bool:
  return any(
    unicodedata.category(character) in ("Cf", "Cc", "Co", "Cn")
    and character not in "\t\n\r"
    for character in text
  )
