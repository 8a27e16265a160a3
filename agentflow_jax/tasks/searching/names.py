"""What looks like a name in English text: runs of capitalised words.

No list of names is needed, so it works for any corpus; it is a guess, and
whoever plans by it has to live with pieces of names and with words that only
begin a sentence.
"""

import re
from collections.abc import Iterator

_CAPITALISED = r"[^\W\d_a-zß-öø-ÿ][\w'’.-]*"
# Numbers go on with a name, and begin none: "Apollo 13", "World War 2".
_WORD = rf"(?:{_CAPITALISED}|\d[\w-]*)"
# What may stand between two words of one name.
_JOINT = (
  r"(?:\s(?:of|the|de|la|in|and|for|on|a|to|with|von|van|der|du|da|di|del|al|"
  r"el|at|&)){0,3}\s"
)
_MAX_WORDS = 12
_NAME = re.compile(rf"{_CAPITALISED}(?:{_JOINT}{_WORD}){{0,{_MAX_WORDS - 1}}}")
# Words that begin a question or a sentence and no name.
_LEADING = frozenset(
  (
    *("A", "An", "Are", "Did", "Do", "Does", "For", "From", "Has", "He", "Her"),
    *("His", "How", "In", "Is", "It", "Its", "Of", "On", "She", "That", "The"),
    *("Their", "They", "This", "To", "Was", "Were", "What", "When", "Where"),
    *("Which", "Who", "Whom", "Whose", "Why", "With", "At", "By", "If", "Are"),
  )
)
_MIN_CHARS = 3
_MAX_CHARS = 80


def names(text: str) -> Iterator[str]:
  """The names in `text`, in its order; one may come more than once.

  Example: "Who directed Get Low and when?" -> "Get Low".
  """
  for match in _NAME.finditer(text):
    words = match[0].split(" ")
    while words and (
      words[0].capitalize() in _LEADING or words[0][0].isdigit()
    ):
      words = words[1:]
    name = " ".join(words).strip(" .'’-")
    if _MIN_CHARS <= len(name) <= _MAX_CHARS:
      yield name
