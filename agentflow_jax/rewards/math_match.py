"""math: the answer is mathematically the reference.

Flow: both texts without their wrapping ($, \\boxed, \\text, units' spacing) ->
fast path (numbers, fractions, simple LaTeX, words), which decides whenever the
reference is a number or words -> otherwise math-verify in a worker process
that is killed after 2 s of processor time.

A reference that is a number wants a number: "2+3", a sum that restates the
question or an integral is not worked out for the answer's sake. For other
references the answer must not hold \\sum, \\int and the like unless the
reference does. A list of candidates, hidden characters and towers of powers
are wrong.
"""

import functools
import pathlib
import re
import sys
import unicodedata
from collections.abc import Sequence

from agentflow_jax.rewards import exact_match as exact_match_lib
from agentflow_jax.rewards import numeric_match, worker_pool

# Processor time per reference; the worker's own timer has the same limit.
CPU_LIMIT_S = 2.0
# Of a worker that does not even calculate; what it waits for a processor does
# not count (worker_pool.py), so a busy machine changes no verdict.
LIMIT_S = 10.0

_MAX_CHARS = 400
_WORKERS = 2
_WORKER = pathlib.Path(__file__).with_name("math_worker.py")
_BOXED = re.compile(r"\\f?boxed\s*\{")
_DROPPED = re.compile(
  r"(?<!\\)\\"
  r"(?:left|right|displaystyle|textstyle|,|!|;|:|>| |quad|qquad)(?![a-zA-Z])"
)
_TEXT = re.compile(
  r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"
)
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\u00b0")
_FRACTION = re.compile(
  r"\\[dt]?frac\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))"
  r"\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))"
)
_NAMED = re.compile(r"^\s*[a-zA-Z]\s*(?:=|\\in)\s*")
_POWER = re.compile(r"(-?[0-9]{1,4})\s*\^\s*(?:\{([0-9]{1,2})\}|([0-9]))")
# One or two letters are variables.
_WORDS = re.compile(r"[^\W\d_]{3,}(?:[\s'.,-]+[^\W\d_]{3,})*[.]?")
_UNWORKED = re.compile(
  r"\\(?:sum|int|prod|lim|max|min|gcd|binom|sup|inf|operatorname)"
  r"(?![a-zA-Z])|!"
)
# More powers than this, or longer exponents, are bombs, not answers.
_MAX_POWERS = 6
_LONG_EXPONENT = re.compile(r"\^\s*\{?\s*-?[0-9]{4,}")
_TOWER = re.compile(r"\^\s*\{?[^{}\s]*\^|\^\s*[^{}\s]\s*\^")
_ALTERNATIVE = re.compile(r"\b(?:or|and|either|not|maybe)\b", re.IGNORECASE)


def math(answer: str, references: Sequence[str]) -> bool:
  """True if `answer` equals a reference.

  Blocks, up to `CPU_LIMIT_S` of a worker's processor time per reference; call
  it from a thread.

  Raises:
    RewardError: no worker process can be started, or it gets no processor.

  Example: math("\\\\frac{\\\\sqrt{8}}{2}", ("\\\\sqrt{2}",)) is True.
  """
  given = _unwrap(answer)
  if given is None:
    return False
  return any(_equal(given, reference) for reference in references)


def _equal(given: str, reference: str) -> bool:
  wanted = _unwrap(reference)
  if wanted is None:
    return False
  same_words = exact_match_lib.exact_match(_plain(given), (_plain(wanted),))
  if same_words and not _differ_in_symbols(given, wanted):
    return True
  if _number(wanted) is not None:
    return _same_number(given, wanted)
  only_text = not re.search(r"\w", _TEXT.sub("", wanted))
  if only_text or _WORDS.fullmatch(_plain(wanted)):
    return False  # words are compared as words, never as products of letters
  if _is_unworked(given, wanted):
    return False
  reply = _pool().ask({"answer": given, "reference": wanted})
  return bool(reply and reply.get("equal"))


def _unwrap(text: str) -> str | None:
  """The formula without what stands around it; None if it can not be one."""
  if len(text) > _MAX_CHARS or not text.strip():
    return None
  if any(_is_hidden(character) for character in text):
    return None
  boxes = {" ".join(box.split()) for box in _boxes(text)}
  if len(boxes) > 1:
    return None  # two different final answers are none
  text = boxes.pop() if boxes else text
  text = text.replace("\u2212", "-").replace("\u00d7", "\\times ")
  text = text.replace("\\$", "$").replace("\\%", "%")
  text = text.replace("\\(", "").replace("\\)", "")
  text = text.replace("\\[", "").replace("\\]", "")
  text = text.strip().strip("`*").strip().rstrip(".").strip()
  if text.count("$") % 2 == 0:
    text = text.replace("$", "")
  return _DROPPED.sub(" ", text).strip() or None


def _boxes(text: str) -> list[str]:
  """Contents of every complete \\boxed{...}."""
  found = []
  for start in _BOXED.finditer(text):
    depth = 1
    for end in range(start.end(), len(text)):
      depth += {"{": 1, "}": -1}.get(text[end], 0)
      if depth == 0:
        found.append(text[start.end() : end])
        break
  return found


def _plain(text: str) -> str:
  """Without \\text and degrees; number fractions as "a/b"."""
  text = _DEGREES.sub("", _TEXT.sub(r" \1 ", text))
  text = _FRACTION.sub(_as_ratio, text)
  text = re.sub(r"(?<=[0-9])\s*\{,\}\s*(?=[0-9]{3})", ",", text)
  text = re.sub(r"(?<=[0-9]),\s+(?=[0-9]{3}\b)", ",", text)
  return _NAMED.sub("", text).strip()


def _as_ratio(match: re.Match[str]) -> str:
  above, below = match[1] or match[2], match[3] or match[4]
  after_digit = match.string[: match.start()][-1:].isdigit()
  if below.startswith("-"):
    above = above[1:] if above.startswith("-") else f"-{above}"
  return f"{' ' * after_digit}{above}/{below.removeprefix('-')}"


def _number(text: str) -> numeric_match.Number | None:
  """The number a formula is, if it is written as one."""
  plain = _plain(text)
  if power := _POWER.fullmatch(plain):
    plain = str(int(power[1]) ** int(power[2] or power[3]))
  if re.search(r"[\\^_{}=<>]", plain):
    return None
  return numeric_match.parse_number(plain.replace("--", ""))


def _same_number(given: str, wanted: str) -> bool:
  number = _number(given)
  if number is None or _ALTERNATIVE.search(given):
    return False
  reference = _plain(wanted)
  if power := _POWER.fullmatch(reference):
    reference = str(int(power[1]) ** int(power[2] or power[3]))
  shown = f"{number.value}{' %' if number.percent else ''}"
  return numeric_match.numeric_match(shown, (reference,))


def _differ_in_symbols(given: str, wanted: str) -> bool:
  """Normalisation drops signs of letters and brackets; maths does not."""
  symbols = "-+^<>=![](){}|/"
  return [c for c in _plain(given) if c in symbols] != [
    c for c in _plain(wanted) if c in symbols
  ]


def _is_unworked(given: str, wanted: str) -> bool:
  if _LONG_EXPONENT.search(given) or _TOWER.search(given):
    return True
  if given.count("^") + given.count("**") > max(_MAX_POWERS, wanted.count("^")):
    return True
  if _ALTERNATIVE.search(_plain(given)) and not _ALTERNATIVE.search(
    _plain(wanted)
  ):
    return True
  return bool(_UNWORKED.search(given)) and not _UNWORKED.search(wanted)


def _is_hidden(character: str) -> bool:
  return unicodedata.category(character) in ("Cf", "Cc", "Co", "Cn") and (
    character not in "\t\n\r"
  )


@functools.cache
def _pool() -> worker_pool.WorkerPool:
  return worker_pool.WorkerPool(
    [sys.executable, "-I", str(_WORKER)],
    size=_WORKERS,
    limit_s=LIMIT_S,
    cpu_limit_s=CPU_LIMIT_S,
  )
