"""How text nobody trusts is put into a prompt or a record.

Tool output, model text and questions are data. Before they enter a prompt
they are bounded (`cut_middle`, `cut_to_tokens`), kept from forging a section
heading or a control token of a chat (`neutralise`, `section`, `one_line`; the
tokens are those of core/control_tokens.py),
squeezed into one line where the format has one line (`one_line`), and made
encodable (`scrub`).

What this does not do: judge content. A result that argues "ignore your
instructions" stays in the prompt, as text under its own heading.
"""

import re
from collections.abc import Callable

from agentflow_jax.core import control_tokens
from agentflow_jax.core import messages as messages_lib

_LABELS = (
  messages_lib.QUESTION,
  messages_lib.ANALYSIS,
  messages_lib.TOOLS,
  messages_lib.MEMORY,
  messages_lib.CONTEXT,
  messages_lib.SUB_GOAL,
  messages_lib.TOOL_NAME,
  messages_lib.RESULT,
  messages_lib.VERDICT,
  messages_lib.COMMAND,
)

# What may stand before a heading and still let a reader see one: blanks,
# invisible characters, markdown. ">" is not among them: a guarded line is not
# guarded again. Possessive, so that matching is linear in the line.
_LEAD = r"(?:[^\S\n]|[\u200b-\u200f\u2060\ufeff*_#`-])*+"

_FORGED_HEADING = re.compile(
  rf"^(?={_LEAD}(?:"
  + "|".join(re.escape(label[:-1]) + r"[ \t*_]*+[:\uff1a]" for label in _LABELS)
  + r"|Turn[ \t]+\d{1,9}[ \t]*(?:[:\uff1a]|of\b)))",
  re.IGNORECASE | re.MULTILINE,
)


def neutralise(text: str) -> str:
  """Prefixes every line that looks like a heading of ours with "> ".

  Control tokens are defused as well. Every kind of line break becomes "\\n"
  first, so that no reader sees a line start this function did not see; leading
  and trailing ones are dropped. Idempotent.
  """
  return _FORGED_HEADING.sub(
    "> ", control_tokens.defuse(_with_plain_breaks(text))
  )


def section(label: str, text: str) -> str:
  """`label text` as lines of a prompt; only `label` can be read as one.

  The first line of `text` stands behind the label and is left as it is.
  """
  if text.isprintable():  # no line break of any kind: most texts
    return f"{label} {control_tokens.defuse(text)}"
  first, line_break, rest = control_tokens.defuse(
    _with_plain_breaks(text)
  ).partition("\n")
  return f"{label} {first}{line_break}{_FORGED_HEADING.sub('> ', rest)}"


def _with_plain_breaks(text: str) -> str:
  return "\n".join(text.splitlines()).strip("\n")


def one_line(text: str, max_chars: int) -> str:
  """All of `text` on one line, at most `max_chars` characters."""
  # Bounded before the split: a hostile text can be a gigabyte of blanks.
  head = cut_middle(text, 4 * max_chars)[0]
  return cut_middle(control_tokens.defuse(" ".join(head.split())), max_chars)[0]


def cut_middle(text: str, max_chars: int) -> tuple[str, int]:
  """Keeps both ends and says in between how much is gone.

  The marker stands inside a line, so the part after it can not become the
  start of one. Copies at most `max_chars` characters however long `text` is.

  Returns:
    The text, at most `max_chars` long, and the number of characters cut.
  """
  if len(text) <= max_chars:
    return text, 0
  marker = f" [... {len(text)} characters cut ...] "
  room = max_chars - len(marker)
  if room < 2:
    return text[:max_chars], len(text) - max_chars
  # The count is at most as wide as len(text), which reserved the room.
  cut = len(text) - room
  tail = room // 2
  marker = f" [... {cut} characters cut ...] "
  return text[: room - tail] + marker + text[len(text) - tail :], cut


def cut_to_tokens(
  text: str, max_tokens: int, count_tokens: Callable[[str], int]
) -> tuple[str, int]:
  """As `cut_middle`, for a limit in tokens.

  Args:
    text: any text.
    max_tokens: longest result.
    count_tokens: at most one token per UTF-8 byte; called a few times, and
      not at all for a text that is short enough by its bytes.
  """
  if len(text.encode("utf-8", errors="replace")) <= max_tokens:
    return text, 0
  tokens = count_tokens(text)
  short, cut, max_chars = text, 0, len(text)
  while tokens > max_tokens and max_chars:
    # Proportionally, and a bit more, so that it ends after a few rounds.
    max_chars = min(max_chars * max_tokens // tokens, max_chars * 15 // 16)
    short, cut = cut_middle(text, max_chars)
    tokens = count_tokens(short)
  return short, cut


def scrub(text: str) -> str:
  """`text` without lone surrogates, which no UTF-8 encoder accepts."""
  if text.isascii():
    return text
  return text.encode("utf-8", errors="replace").decode("utf-8")
