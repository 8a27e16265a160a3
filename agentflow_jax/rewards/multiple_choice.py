"""multiple_choice: the answer names the right option, and no other one.

An answer chooses by letter ("B", "(b)", "Option B", "B. Nitrofurantoin"), or
by an option's whole text, normalised. A letter with the text of another option
chooses nothing, and neither do several letters or a text that is no option:
there is no nearest and no first option.
"""

import re
import string
from collections.abc import Sequence

from agentflow_jax.rewards import normalisation

_MAX_CHARS = 2000
_MARKUP = re.compile(r"\\boxed\b|\\text(?:bf)?\b|[*`${}]")
_LEAD = re.compile(
  r"(?:so |therefore,? |thus,? )?(?:the |my )?"
  r"(?:(?:final|correct|best|right) )?(?:answer|option|choice)"
  r"(?: is(?: option)?)?\s*:?\s+",
  re.IGNORECASE,
)
_LETTER = re.compile(r"[(\[]?(?P<letter>[A-Za-z])[)\]]?[.:)]?")
_LETTER_AND_TEXT = re.compile(
  r"(?:\((?P<inside>[A-Za-z])\)[.:]?|(?P<bare>[A-Za-z])(?:[.:)]|\s+-))"
  r"\s*(?P<text>\S.*)",
  re.DOTALL,
)
_LETTER_A = re.compile(r"\(?a[.:)]", re.IGNORECASE)
# A further choice inside an explanation: "(C)", "C.", "or C", "option C".
_OTHER_LETTER = re.compile(
  r"\((?P<a>[A-Z])\)|(?<![\w.])(?P<b>[A-Z])[.):](?!\w)"
  r"|\b(?:or|and|option|choice|answer|is)\s+(?P<c>[A-Z])\b(?!\s*[a-z])"
)


def multiple_choice(
  answer: str, references: Sequence[str], options: Sequence[str]
) -> bool:
  """True if `answer` chooses the option that a reference names.

  Args:
    answer: a letter, an option's text, or both.
    references: the same forms.
    options: texts without letters, A first; without them only letters and
      the references' own texts can be compared.

  Example: multiple_choice("B. Oral ulcers", ("B",), ("Gout", "Oral ulcers")).
  """
  chosen = choice(answer, options)
  if chosen is None:
    given = normalisation.normalise(answer[:_MAX_CHARS])
    return (
      bool(given)
      and not options
      and given in map(normalisation.normalise, references)
    )
  return chosen in {choice(text, options) for text in references}


def choice(text: str, options: Sequence[str]) -> int | None:
  """The index of the one option that `text` chooses, or None."""
  if len(text) > _MAX_CHARS:
    return None
  texts = [normalisation.normalise(option) for option in options]
  plain = _MARKUP.sub("", text).strip()
  letter = _LETTER.fullmatch(plain)
  if letter is None or _index(letter["letter"], len(options)) is None:
    whole = _whole_option(plain, options, texts)
    if whole is not None:
      return whole  # also an option "X" among four
  plain = _LEAD.sub("", plain, count=1).strip()
  if match := _LETTER.fullmatch(plain):
    return _index(match["letter"], len(options))
  whole = _whole_option(plain, options, texts)
  if whole is not None:
    return whole
  match = _LETTER_AND_TEXT.fullmatch(plain)
  if match is None:
    return None
  index = _index(match["inside"] or match["bare"], len(options))
  if index is None or _contradicts(match["text"], index, texts):
    return None
  return index


def _whole_option(
  plain: str, options: Sequence[str], texts: Sequence[str]
) -> int | None:
  """The option whose whole text this is."""
  if _LETTER_A.match(plain):  # normalised, it would be an article and go
    exact = [" ".join(option.casefold().split()) for option in options]
    given = " ".join(plain.casefold().split())
    return exact.index(given) if given in exact else None
  given = normalisation.normalise(plain)
  return texts.index(given) if given in texts else None


def _contradicts(text: str, index: int, texts: Sequence[str]) -> bool:
  """Does what stands behind a letter speak for another option?"""
  said = f" {normalisation.normalise(text)} "
  own = texts[index] if index < len(texts) else ""
  if own and said.strip() == own:
    return False  # "A. C. albicans" is not C
  if own and f" {own} " in said:
    said = said.replace(f" {own} ", " | ", 1)
  others = (other for i, other in enumerate(texts) if i != index)
  if any(other and f" {other} " in said for other in others):
    return True
  letters = {
    match["a"] or match["b"] or match["c"]
    for match in _OTHER_LETTER.finditer(text)
  }
  return bool(letters - {string.ascii_uppercase[index]})


def _index(letter: str, count: int) -> int | None:
  index = string.ascii_lowercase.index(letter.lower())
  return index if index < (count or len(string.ascii_lowercase)) else None
