"""What looks like a name in English text: runs of capitalised words.

No list of names is needed, so it works for any corpus; it is a guess, and
whoever plans by it has to live with pieces of names and with words that only
begin a sentence.
"""

import re
from collections.abc import Iterator

# A full stop belongs to an initial ("J.") or stands within ("S.A.T").
_LETTER = r"[^\W\d_a-zß-öø-ÿ]"
_CAPITALISED = rf"{_LETTER}(?:\.(?!\w)|[\w'’-]*(?:\.[\w'’-]+)*)"
# Numbers go on with a name, and begin none: "Apollo 13", "World War 2".
_WORD = rf"(?:{_CAPITALISED}|\d[\w-]*)"
# What may stand between two words of one name.
_JOINT = r"(?:\s(?:of|the|and|de|la|von|van|&)){0,3}\s"
_MAX_WORDS = 12
_NAME = re.compile(rf"{_CAPITALISED}(?:{_JOINT}{_WORD}){{0,{_MAX_WORDS - 1}}}")
# Words that begin a question or a sentence and no name.
_LEADING = frozenset(
  (
    *("A", "An", "Are", "Did", "Do", "Does", "For", "From", "Has", "He", "Her"),
    *("His", "How", "In", "Is", "It", "Its", "Of", "On", "She", "That", "The"),
    *("Their", "They", "This", "To", "Was", "Were", "What", "When", "Where"),
    *("Which", "Who", "Whom", "Whose", "Why", "With", "At", "By", "If"),
  )
)
_LINKS = frozenset(("by", "of", "to", "with", "from", "and", "for", "director"))
_BACK_CHARS = 32
_MIN_CHARS = 3
_MAX_CHARS = 80


def names(text: str) -> Iterator[str]:
  """The names in `text`, in its order; one may come more than once.

  Example: "Who directed Get Low and when?" -> "Get Low".
  """
  for match in _NAME.finditer(text):
    if name := _name(match):
      yield name


def linked_names(text: str) -> Iterator[str]:
  """The names that stand behind "by", "of" and the like, in order.

  What a sentence links its subject to: "a film directed by Uberto Pasolini".
  Names of several words come first: "by American singer Dion DiMucci" has the
  link before a word that is none, and the name further on.
  """
  linked, after = [], []
  behind, end = False, 0
  for match in _NAME.finditer(text):
    # The word before, behind which a quote may open; no more, for a text may
    # be long and full of names.
    before = text[max(0, match.start() - _BACK_CHARS) : match.start()]
    direct = before.rpartition(" ")[0].rpartition(" ")[2] in _LINKS
    # A clause later, a link says nothing any more.
    behind = direct or (
      behind and not set(text[end : match.start()]) & set(".,;(")
    )
    end = match.end()
    name = _name(match)
    if name and direct:
      linked.append(name)
    elif name and behind:
      after.append(name)
  several = [name for name in (*linked, *after) if " " in name]
  yield from dict.fromkeys((*several, *linked))


def _name(match: re.Match[str]) -> str:
  """Without words that only begin a sentence; "" if nothing is left."""
  words = match[0].split(" ")
  while words and (words[0].capitalize() in _LEADING or words[0][0].isdigit()):
    words = words[1:]
  name = " ".join(words).strip(" .'’-")
  return name if _MIN_CHARS <= len(name) <= _MAX_CHARS else ""
