"""Stretches of text that planners read and write all the time, a token each.

A plan of the laptop planner is a name, a sub-goal and a tool between labels.
With words for tokens that is twenty of them, of which three are decisions; with
labels, sub-goals and tool lines as single tokens it is six. Sampling, learning
and the chance of a slip shrink with it. What phrases may not hold is a name:
names have to be copied, part by part.

The same goes for a policy's pieces: `<search>`, a name, ` currency</search>`.

Phrases begin with a line break, a space or a tag, so that they never cut a
word.
"""

import collections
import re
from collections.abc import Callable, Iterable, Sequence

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.training import traces as traces_lib

# How often a phrase stands in the episodes at least, and how many there are.
_MIN_SHARE = 0.01
_MIN_COUNT = 5
_MAX_PHRASES = 256
_BAR = " | "
# What a chat shows at every turn.
_ROLES = ("user", "assistant")
_LABEL = re.compile(r"[A-Z][A-Za-z -]{1,18}:")
_PIECE = re.compile(r"(<([a-z][a-z0-9_]*)>)( [^<>]+)(</\2>)")
# Of the words before a closing tag, at most so many are one token with it.
_LAST_WORDS = 4


def common_phrases(
  found: Sequence[traces_lib.Trace],
  is_phrase: Callable[[str], bool],
  others: Sequence[str] = (),
) -> list[str]:
  """Phrases of episodes, the most common first.

  Args:
    found: random-strategy episodes.
    is_phrase: whether a common stretch may be one token; not if it has a name.
    others: phrases beside those of the episodes.

  Example: "\\nSub-Goal: find the currency", "\\nVerdict: CONTINUE",
  " | find the currency".
  """
  counts = collections.Counter(
    phrase
    for trace in found
    for text in (trace.shown(-1), *trace.plans)
    for phrase in _of_lines(text)
  )
  common = [
    phrase
    for phrase, count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    if count >= max(_MIN_COUNT, _MIN_SHARE * len(found)) and is_phrase(phrase)
  ]
  phrases = [messages_lib.CONTEXT, *_ROLES, *others, *common]
  return list(dict.fromkeys(phrases))[:_MAX_PHRASES]


def _of_lines(text: str) -> Iterable[str]:
  """Whole lines, their labels, and what stands beside the bars of a line."""
  for line in text.split("\n"):
    if piece := _PIECE.fullmatch(line):
      yield from _of_piece(piece)
      continue
    parts = line.split(_BAR)
    if label := _LABEL.match(line):
      yield f"\n{label[0]}"
    if len(parts) > 1:
      yield f"\n{parts[0]}{_BAR.rstrip()}"
      yield f"{_BAR}{parts[-1]}"
    elif " " in line:
      yield f"\n{line}"


def _of_piece(piece: re.Match[str]) -> Iterable[str]:
  """All of it, its tags, and the tags with the words beside them."""
  opening, _, body, closing = piece.groups()
  words = body.split()
  yield from (piece[0], opening, closing, f"{opening} {words[0]}")
  for first in range(max(1, len(words) - _LAST_WORDS), len(words)):
    yield f" {' '.join(words[first:])}{closing}"
