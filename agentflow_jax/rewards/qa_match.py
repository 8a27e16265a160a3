"""qa_match: a short answer in words, by rules strict enough to train on.

An answer is right if it is a reference after SQuAD's normalisation, the same
number, the same date, the same yes or no, or a sentence that says a reference
and nothing else: every further word is a function word or a word of the
question that is no name. So "It was written by Jane Austen" can be right,
while a list of candidates, "not Jane Austen", and a hedge are wrong.

`token_f1` and `cover_em` are the usual published measures, to report beside
it. Cover-EM accepts any text that contains a reference, and so a list of all
candidates: the reward of that name is `cover_one`, which accepts no list.
"""

import collections
import datetime
import itertools
import re
from collections.abc import Sequence

from agentflow_jax.rewards import exact_match as exact_match_lib
from agentflow_jax.rewards import normalisation, numeric_match

_MAX_CHARS = 2000
_MAX_EXTRA_WORDS = 24
_MAX_PIECES = 3
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
# Where an answer is cut to see whether it lists something. A dot after a short
# word ends an abbreviation.
_CUT = re.compile(
  r",(?!(?<=[0-9],)[0-9]{3}(?![0-9]))|[\n\r\t\u2022\u3001\uff0c]"
  r"|[?!](?:\s|$)|(?<=\w{4})\.(?:\s|$)|\s[&+]\s|\band\b",
  re.IGNORECASE,
)
_A = re.compile(r"\W*an?\s", re.IGNORECASE)
# With one of these a piece of a sentence is a remark, not a candidate.
_REMARK_WORDS = _FUNCTION_WORDS | frozenset(
  re.findall(
    r"\w+",
    """near during after before since until about into over under between
    within i we you they will would can may also only just here""",
  )
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

  The published measure; not to be trained on.
  """
  cut = answer[:_MAX_CHARS]
  return any(_rest(cut, text) is not None for text in references)


def cover_one(answer: str, references: Sequence[str]) -> bool:
  """As `cover_em`, where the reference is the one candidate of `answer`.

  Not a list, so that naming everything is no answer:
    - at most 24 further words, none of them an alternative or a denial;
    - cut at commas, line ends, "and" and the like, it has at most three pieces,
      and no other piece may be a candidate: one without function words
      ("Hanoi", "the Thai baht"), or with those of the piece that holds the
      reference ("it is Hanoi");
    - fewer further words touch the reference than it has (one, if it has one):
      "Barack Obama" covers "Obama", "Hanoi Bangkok Vientiane" nothing. Beside a
      number they may only be words: "129 metres long", not "128 129".

  What it can not see: that one name beside a single word is another candidate.
  A name behind a comma that adds to it ("Paris, France") counts as a second.

  Example: cover_one("It was Lima, a city in Peru.", ("Lima",)) is True.
  """
  if len(answer) > _MAX_CHARS or _ALTERNATIVE.search(answer):
    return False
  return any(_covers_one(answer, text) for text in references)


def _covers_one(answer: str, reference: str) -> bool:
  rest = _rest(answer, reference)
  if rest is None or len(rest) > _MAX_EXTRA_WORDS:
    return False
  pieces = _pieces(answer)

  def holds(first: int, last: int) -> bool:
    run = answer[pieces[first].start : pieces[last].stop]
    return _rest(run, reference) is not None

  # The run of pieces that holds the reference, which may have commas itself.
  last = next((n for n in range(len(pieces)) if holds(0, n)), None)
  if last is None:
    return False
  first = max(n for n in range(last + 1) if holds(n, last))
  own = answer[pieces[first].start : pieces[last].stop]
  others = [answer[piece] for piece in pieces[:first] + pieces[last + 1 :]]
  return (
    len(others) < _MAX_PIECES
    and not _is_crowded(own, reference)
    and not any(_is_candidate(other, own, reference) for other in others)
  )


def _pieces(answer: str) -> list[slice]:
  """Where the parts with words are between the cuts of an answer."""
  cuts = list(_CUT.finditer(answer))
  starts = [0, *(cut.end() for cut in cuts)]
  ends = [*(cut.start() for cut in cuts), len(answer)]
  return [
    slice(start, end)
    for start, end in zip(starts, ends, strict=True)
    if re.search(r"\w", answer[start:end])
  ]


def _is_candidate(other: str, own: str, reference: str) -> bool:
  """Could this piece of an answer be the answer as well as the `own` one?"""
  words = normalisation.normalise(other).split()
  if not words or (_A.match(other) and not _A.match(own)):
    return False  # "Jane Austen, an English novelist"
  frame = [word for word in words if word in _REMARK_WORDS]
  around = _rest(own, reference) or []
  same = [word for word in around if word in _REMARK_WORDS]
  # Said twice it is still one.
  return frame in ([], same) and _rest(other, reference) != []


def _is_crowded(own: str, reference: str) -> bool:
  """Is there room for another candidate in what touches the reference?"""
  given = normalisation.normalise(own).split()
  wanted = normalisation.normalise(reference).split()
  size = len(wanted)
  start = next(n for n in range(len(given)) if given[n : n + size] == wanted)
  touching = [
    *itertools.takewhile(_is_no_remark, reversed(given[:start])),
    *itertools.takewhile(_is_no_remark, given[start + size :]),
  ]
  if re.search("[0-9]", reference):
    return any(re.search("[0-9]", word) for word in touching)
  return len(touching) > max(1, size - 1)


def _is_no_remark(word: str) -> bool:
  return word not in _REMARK_WORDS


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
