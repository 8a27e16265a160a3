"""numeric_match: the answer says the same number as a reference answer.

Flow: each text is read as exactly one number with words around it (`5`, `3/4`,
`-1,234.50`, `1 3/4`, `12 %`, `$5 million`, `8848 metres`, `6.02e23`) into an
exact fraction, and fractions are compared. Integers must be equal; other
numbers may differ by 1e-6 of the larger.

What it does not do: calculate. A text with two numbers, an operator, a power, a
function or anything else whose value would have to be worked out is no number,
so "9**9**9**9" costs nothing and a list of candidates is wrong. Units are not
converted or compared. Number words ("twelve") are matched as words only.
"""

import dataclasses
import fractions
import re
import unicodedata
from collections.abc import Sequence

from agentflow_jax.rewards import exact_match as exact_match_lib

RELATIVE_TOLERANCE = fractions.Fraction(1, 10**6)

_MAX_CHARS = 200
_SCALES = {
  "dozen": 12,
  "hundred": 100,
  "thousand": 10**3,
  "million": 10**6,
  "billion": 10**9,
  "trillion": 10**12,
}
_SCALE = "|".join(_SCALES)
_NUMBER = re.compile(
  # Not in the middle of a word, a number or an expression.
  r"(?<![\w./^*+-])"
  r"(?P<sign>[-+])?(?:[$\u20ac\u00a3\u00a5\u20b9] ?)?"
  r"(?:"
  r"(?P<whole>[0-9]+) +(?P<part>[0-9]+)/(?P<parts>[0-9]+)"
  r"|(?P<numerator>[0-9]+) ?/ ?(?P<denominator>[0-9]+)"
  r"|(?P<decimal>"
  r"(?:[1-9][0-9]{0,2}(?P<comma>[, _'\u2019])[0-9]{3}(?:(?P=comma)[0-9]{3})*"
  r"(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
  r"(?:e(?P<exponent>[-+]?[0-9]{1,3})(?![0-9]))?"
  r")"
  rf"(?P<scales>(?: ?(?:{_SCALE})s?\b)*)"
  r"(?P<percent> ?(?:%|per ?cent\b))?"
)
# "km^2", "m3", "CO2": a digit that belongs to a word. In "5x5" and "1e5e5" it
# does not.
_UNIT_POWER = re.compile(r"(?![ex]\^?-?[0-9])[^\W\d_]+\^?-?[0-9]\b")
_EMPHASIS = re.compile(r"(\*{1,3}|`)(?P<inside>[^*`]*)\1")
# An open operator before the number, or a function applied to it.
_OPERATOR = re.compile(r"(?:[-+]|\w\()[\s'\"]*$")
# With one of these a text is an expression or a bound, not a number.
_NOT_A_NUMBER = frozenset("^*!<>\u2264\u2265\u00b1\u221a\u221e\u03c0")
_PLAIN_SIGNS = str.maketrans({"\u2212": "-", "\u2044": "/"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Number:
  """A number as written: "50 %" has the value 50 and is a percentage."""

  value: fractions.Fraction
  percent: bool


def numeric_match(answer: str, references: Sequence[str]) -> bool:
  """True if `answer` is the number of a reference.

  A reference that is no number ("twelve") is compared as exact_match does. The
  percent sign: "50 %" is 0.5; "50 %" is also 50, where only one side has the
  sign and it can be understood from the question.

  Example: numeric_match("1,887 m", ("1887",)) is True.
  """
  given = parse_number(answer)
  for text in references:
    wanted = parse_number(text)
    if wanted is None:
      if exact_match_lib.exact_match(answer, (text,)):
        return True
    elif given is not None and _equal(given, wanted):
      return True
  return False


def parse_number(text: str) -> Number | None:
  """The one number in `text`, or None if there is not exactly one.

  Never raises and never computes more than a fraction of what is written.

  Example: parse_number("about $1.5 million").value == 1500000.
  """
  if len(text) > _MAX_CHARS:
    return None
  emphasis = _EMPHASIS.fullmatch(text.strip())
  plain = _plain(emphasis["inside"] if emphasis else text)
  match = _NUMBER.search(plain)
  if match is None:
    return None
  before, after = plain[: match.start()], plain[match.end() :]
  rest = _UNIT_POWER.sub(" ", f"{before} | {after}")
  if _OPERATOR.search(before) or any(map(_spoils, rest)):
    return None
  value = _value(match)
  if value is None:
    return None
  return Number(value=value, percent=match["percent"] is not None)


def _spoils(character: str) -> bool:
  """Digits of a second number, operators, and invisible characters."""
  return (
    character.isnumeric()
    or character in _NOT_A_NUMBER
    or unicodedata.category(character).startswith("C")
  )


def _plain(text: str) -> str:
  """Lower case, ASCII digits and signs; "10²" -> "10^2", "2½" -> "2 1/2"."""
  pieces = []
  raised = False
  for character in text:
    form = unicodedata.decomposition(character).split(" ")[0]
    plain = unicodedata.normalize("NFKC", character)
    was_raised, raised = raised, form in ("<super>", "<sub>")
    if raised and not was_raised:
      pieces.append("^")
    if form == "<fraction>":
      pieces.append(" ")
    pieces.append("".join(str(int(c)) if c.isdecimal() else c for c in plain))
  joined = unicodedata.normalize("NFKC", "".join(pieces))
  return " ".join(joined.translate(_PLAIN_SIGNS).casefold().split())


def _value(match: re.Match[str]) -> fractions.Fraction | None:
  if match["parts"] is not None:
    if int(match["parts"]) == 0:
      return None
    value = int(match["whole"]) + fractions.Fraction(
      int(match["part"]), int(match["parts"])
    )
  elif match["denominator"] is not None:
    if int(match["denominator"]) == 0:
      return None
    value = fractions.Fraction(
      int(match["numerator"]), int(match["denominator"])
    )
  else:
    digits = match["decimal"].replace(match["comma"] or ",", "")
    # At most 200 digits and a three-digit exponent: bounded work.
    value = fractions.Fraction(f"{digits}e{match['exponent'] or 0}")
  for scale in re.findall(_SCALE, match["scales"]):
    value *= _SCALES[scale]
  return -value if match["sign"] == "-" else value


def _equal(given: Number, wanted: Number) -> bool:
  if given.percent == wanted.percent:
    return _close(given.value, wanted.value)
  if given.percent:
    # A reference up to 1 is a share, so "0.5 %" is not 0.5.
    unsigned = abs(wanted.value) > 1 and _close(given.value, wanted.value)
    return unsigned or _close(given.value / 100, wanted.value)
  return _close(given.value, wanted.value) or _close(
    given.value, wanted.value / 100
  )


def _close(given: fractions.Fraction, wanted: fractions.Fraction) -> bool:
  if wanted.denominator == 1:
    return given == wanted
  slack = RELATIVE_TOLERANCE * max(abs(given), abs(wanted))
  return abs(given - wanted) <= slack
