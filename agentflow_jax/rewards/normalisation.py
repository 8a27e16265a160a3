"""The form of an answer in which two answers are compared.

SQuAD's rules (Rajpurkar et al. 2016): case, punctuation, articles and spacing
do not matter. Two changes: compatibility forms of Unicode (NFKC) and the
punctuation of every script count as their plain forms, and in numbers a sign, a
decimal point and whatever else stands between two digits still matter, so that
"1.5" is not "15" and "2-1" is not "21".

What it does not do: understand. Invisible characters are characters, so an
answer with something hidden in it is a different answer.
"""

import itertools
import re
import string
import unicodedata

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_THOUSANDS = re.compile(r"\d{3}(?!\d)")
_PLAIN_SIGNS = str.maketrans({"\u2212": "-", "\u2044": "/"})


def normalise(text: str) -> str:
  """The comparable form of `text`.

  A text that is nothing but articles or punctuation keeps them ("A" is a choice
  in many a test), so only a blank text gives "".

  Example: "The  Lao Kip!" -> "lao kip", "$1,000.50" -> "1000.50".
  """
  plain = unicodedata.normalize("NFKC", text).casefold()
  plain = unicodedata.normalize("NFKC", plain).translate(_PLAIN_SIGNS)
  bare = _without_punctuation(plain)
  for form in (_ARTICLE.sub(" ", bare), bare, plain):
    if form.strip():
      # Taking punctuation out can bring a letter and its accent together.
      return unicodedata.normalize("NFKC", " ".join(form.split()))
  return ""


def _is_punctuation(character: str) -> bool:
  return (
    character in string.punctuation or unicodedata.category(character)[0] == "P"
  )


def _without_punctuation(text: str) -> str:
  runs = [
    (is_punctuation, "".join(characters))
    for is_punctuation, characters in itertools.groupby(text, _is_punctuation)
  ]
  kept = []
  for index, (is_punctuation, run) in enumerate(runs):
    if is_punctuation:
      before = runs[index - 1][1] if index else ""
      after = runs[index + 1][1] if index + 1 < len(runs) else ""
      run = _in_number(before[-1:], run, after)
    kept.append(run)
  return "".join(kept)


def _in_number(before: str, run: str, after: str) -> str:
  """What a run of punctuation becomes between two pieces of text.

  Args:
    before: the character before the run, or "".
    run: the punctuation.
    after: the text after it, up to the next punctuation.
  """
  if not after[:1].isdecimal():
    return ""
  if before.isdecimal():
    if run == ".":
      return "."
    return "" if run == "," and _THOUSANDS.match(after) else " "
  if before.isalnum():
    return ""  # "covid-19" is no negative number
  if run.endswith(".") and not run.endswith(".."):
    return " -0." if run.endswith("-.") else " 0."
  return " -" if run.endswith("-") else ""
