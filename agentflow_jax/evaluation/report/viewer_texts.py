"""Texts and token pieces of the viewer's JSON, each there once and counted.

Prompts are most of a recording, and they share their beginnings: within an
episode, within a group, over a run. So a text is a path in a tree of lines,
and a trajectory holds the number of its last node. 0 is the empty text; node
n > 0 is the line `lines[nodes[2n-1]]` after the text `nodes[2n-2]`.

Every text passes `printable.spell_out`, so what would hide or reorder others
is spelled out; the page only ever shows it as text.

Knows nothing of HTML but how many bytes a value takes in it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentflow_jax.core import printable
from agentflow_jax.evaluation.report import document

# Characters of a text that are kept.
MAX_CHARS = 20_000
_TAIL = 5_000

# Id -> the text it stands for; one function per run, None without a tokenizer.
Decode = Callable[[int], str]


def bytes_in_page(value: Any) -> int:
  """What a value takes in the page; escaping may make six of one."""
  return len(document.data_text(value).encode())


class Texts:
  """The tree of lines; see the module's docstring."""

  def __init__(self):
    self.lines: list[str] = []
    self.nodes: list[int] = []
    self.size = 0  # in bytes of the page, a comma after each
    self._line_numbers: dict[str, int] = {}
    self._node_numbers: dict[tuple[int, int], int] = {}

  def add(self, text: str) -> int:
    """The node of a text."""
    if not text:
      return 0
    node = 0
    for line in printable.spell_out(_cut(text)).split("\n"):
      number = self._line_numbers.get(line)
      if number is None:
        number = self._line_numbers[line] = len(self.lines)
        self.lines.append(line)
        self.size += bytes_in_page(line) + 1
      key = (node, number)
      known = self._node_numbers.get(key)
      if known is None:
        self.nodes += key
        known = self._node_numbers[key] = len(self.nodes) // 2
        self.size += len(str(node)) + len(str(number)) + 2
      node = known
    return node

  def mark(self) -> tuple[int, int, int]:
    """The state that `undo` goes back to."""
    return len(self.lines), len(self.nodes), self.size

  def undo(self, mark: tuple[int, int, int]) -> None:
    """Forgets what was added since `mark`."""
    lines, nodes, self.size = mark
    for line in self.lines[lines:]:
      del self._line_numbers[line]
    added = self.nodes[nodes:]
    for key in zip(added[::2], added[1::2], strict=True):
      del self._node_numbers[key]
    del self.lines[lines:], self.nodes[nodes:]


class Pieces:
  """What the token ids of each run stand for, as far as they occur."""

  def __init__(self, decoders: Sequence[Decode | None]):
    self._decoders = decoders
    self.tables: list[dict[str, str]] = [{} for _ in decoders]
    self.size = 0

  def note(self, run: int, ids: Iterable[int]) -> None:
    """Adds what is not there yet; nothing where a run has no tokenizer."""
    decode, table = self._decoders[run], self.tables[run]
    if decode is None:
      return
    for token in ids:
      if str(token) not in table:
        piece = printable.spell_out(decode(token))
        table[str(token)] = piece
        self.size += len(f'"{token}":,') + bytes_in_page(piece)

  def mark(self) -> tuple[list[int], int]:
    """The state that `undo` goes back to."""
    return list(map(len, self.tables)), self.size

  def undo(self, mark: tuple[list[int], int]) -> None:
    """Forgets what was added since `mark`."""
    lengths, self.size = mark
    for table, length in zip(self.tables, lengths, strict=True):
      for token in list(table)[length:]:
        del table[token]


def _cut(text: str) -> str:
  if len(text) <= MAX_CHARS:
    return text
  head = MAX_CHARS - _TAIL
  left = len(text) - MAX_CHARS
  return f"{text[:head]}\n[… {left:,} more characters …]\n{text[-_TAIL:]}"
