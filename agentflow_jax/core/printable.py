"""Text of strangers, made harmless for whoever reads it.

A terminal obeys control characters and a reader is deceived by characters
that hide or reorder others. Wherever text of a model, a tool or a task is
shown, it passes through here; wherever it is stored, it stays as it is.
"""

import re

# Characters that would hide, reorder or end something for a reader: C0/C1
# controls but tab and newline, line/paragraph separators, zero-width and
# bidirectional controls (the two joiners stay: emoji and several scripts need
# them), byte order marks, and lone surrogates, which UTF-8 can not hold.
DECEIVING = re.compile(
  "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e"
  "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def spell_out(text: str) -> str:
  """`text` with every deceiving character written as its code point.

  Example: `spell_out("a\\x1b[2J")` is `"a[U+001B][2J"`.
  """
  text = text.replace("\r\n", "\n")
  return DECEIVING.sub(lambda match: f"[U+{ord(match.group()):04X}]", text)
