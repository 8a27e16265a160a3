"""qa_match: a short answer in words, by rules strict enough to train on.

An answer is right if it is a reference after SQuAD's normalisation, the same
number, the same date, the same yes or no, or a sentence that says a reference
and nothing else: every further word is a function word or a word of the
question that is no name. So "It was written by Jane Austen" can be right,
while a list of candidates, "not Jane Austen", and a hedge are wrong.

`token_f1` and `cover_em` are the usual published measures, to report beside
it; as rewards they are easier to please.
"""

import collections
import datetime
import re
from collections.abc import Sequence

from agentflow_jax.rewards import exact_match as exact_match_lib
from agentflow_jax.rewards import normalisation, numeric_match

_MAX_CHARS = 2000
_MAX_EXTRA_WORDS = 24
_POLAR = {"yes": "no", "no": "yes"}
# A text of these is a number; "Apollo 11" is a name with one.
_BARE_NUMBER = re.compile(r"[-+\u2212]?[$\u20ac\u00a3]?\s?[0-9][0-9,. ]*\s?%?")
_FUNCTION_WORDS = frozenset(
  re.findall(
    r"\w+",
    """a an the is was are were be been it its this that he she they his her
    their of in on at by to for from with as who which what where when there
    has had have did does do answer final correct called named known so
    therefore because based result""",
  )
)
_ALTERNATIVE = re.compile(
  r"\b(?:or|nor|not|n't|neither|either|maybe|perhaps|possibly|probably|unless|"
  r"unknown|instead|rather|versus|vs|except|never)\b|n't\b|[/|;]",
  re.IGNORECASE,
)
_MONTHS = {
  name: number
  for number, names in enumerate(
    re.findall(
      r"[^,]+",
      "january jan,february feb,march mar,april apr,may,june jun,july jul,"
      "august aug,september sep sept,october oct,november nov,december dec",
    ),
    start=1,
  )
  for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DATES = tuple(
  re.compile(rf"(?:on )?(?:the )?{pattern}\.?", re.IGNORECASE)
  for pattern in (
    rf"(?P<day>\d\d?)(?:st|nd|rd|th)?(?: of)? (?P<month>{_MONTH})\.?,? "
    r"(?P<year>\d{3,4})",
    rf"(?P<month>{_MONTH})\.? (?P<day>\d\d?)(?:st|nd|rd|th)?\s?,? "
    r"(?P<year>\d{3,4})",
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
  )
)


def qa_match(
  answer: str, references: Sequence[str], question: str = ""
) -> bool:
  """True if `answer` is a reference, or a sentence that says only one.

  Args:
    answer: the final answer.
    references: the accepted answers (aliases).
    question: its words may be repeated in a sentence.

  Example: qa_match("It is Vientiane.", ("Vientiane",)) is True.
  """
  if len(answer) > _MAX_CHARS:
    return False
  if exact_match_lib.exact_match(answer, references):
    return True
  return any(
    _same_number(answer, reference)
    or _same_date(answer, reference)
    or _same_polarity(answer, reference)
    or _only_says(answer, reference, question)
    for reference in references
  )


def token_f1(answer: str, references: Sequence[str]) -> float:
  """The best F1 of shared words with a reference (Rajpurkar et al. 2016).

  A yes, a no and an answer without words get 0 unless they are equal.
  """
  given = normalisation.normalise(answer[:_MAX_CHARS]).split()
  return max((_f1(given, text) for text in references), default=0.0)


def cover_em(answer: str, references: Sequence[str]) -> bool:
  """True if the words of a reference stand in `answer`, in one piece.

  At most 24 further words, none of them an alternative or a denial, so that
  a list of everything is no answer.
  """
  if len(answer) > _MAX_CHARS or _ALTERNATIVE.search(answer):
    return False
  return any(
    rest is not None and len(rest) <= _MAX_EXTRA_WORDS
    for text in references
    for rest in (_rest(answer, text),)
  )


def _f1(given: Sequence[str], reference: str) -> float:
  wanted = normalisation.normalise(reference).split()
  if _POLAR.keys() & {*given[:1], *wanted[:1]} and given != wanted:
    return 0.0
  common = (collections.Counter(given) & collections.Counter(wanted)).total()
  return 2 * common / (len(given) + len(wanted)) if common else 0.0


def _same_number(answer: str, reference: str) -> bool:
  if not _BARE_NUMBER.fullmatch(reference.strip()):
    return False
  return numeric_match.numeric_match(answer, (reference,))


def _same_date(answer: str, reference: str) -> bool:
  wanted = _date(reference)
  return wanted is not None and _date(answer) == wanted


def _date(text: str) -> datetime.date | None:
  plain = " ".join(text.strip().rstrip(".").replace(" ,", ",").split())
  for pattern in _DATES:
    if match := pattern.fullmatch(plain):
      month = _MONTHS.get(match["month"].casefold())
      try:
        return datetime.date(
          int(match["year"]), month or int(match["month"]), int(match["day"])
        )
      except ValueError:
        return None
  return None


def _same_polarity(answer: str, reference: str) -> bool:
  """ "Yes, both are." says yes, unless the other word or a hedge follows."""
  wanted = normalisation.normalise(reference)
  if wanted not in _POLAR:
    return False
  head = re.match(r"\W*(yes|no)\b\s*(?:[,.;:!\u2013\u2014-]|$)", answer, re.I)
  if head is None or head[1].casefold() != wanted:
    return False
  rest = normalisation.normalise(answer).split()[1:]
  return _POLAR[wanted] not in rest and not re.search(
    r"\b(?:or|but|maybe|perhaps|unless|unknown)\b", answer, re.IGNORECASE
  )


def _only_says(answer: str, reference: str, question: str) -> bool:
  wanted = normalisation.normalise(reference)
  if wanted in _POLAR or _ALTERNATIVE.search(answer):
    return False
  rest = _rest(answer, reference)
  if rest is None or len(rest) > _MAX_EXTRA_WORDS:
    return False
  # A question that offers alternatives lends no words: "X Y" would name both.
  lent: set[str] = set()
  if not re.search(r"\bor\b", question, re.IGNORECASE):
    lent = {
      normalisation.normalise(word)
      for word in question.split()
      if word == word.casefold() and not any(map(str.isdigit, word))
    }
  return all(word in _FUNCTION_WORDS or word in lent for word in rest)


def _rest(answer: str, reference: str) -> list[str] | None:
  """The words of `answer` without the first run that is the reference."""
  given = normalisation.normalise(answer).split()
  wanted = normalisation.normalise(reference).split()
  if not wanted:
    return None
  for start in range(len(given) - len(wanted) + 1):
    if given[start : start + len(wanted)] == wanted:
      return given[:start] + given[start + len(wanted) :]
  return None
