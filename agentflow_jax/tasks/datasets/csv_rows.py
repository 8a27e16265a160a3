"""Rows of a CSV or TSV file, each with the number of its first line.

Flow: bytes -> physical lines -> `csv` joins the lines of a quoted field -> a
row by the names in the first line. An empty cell is None, as in other tables.

What is no row is a problem in its place: bad UTF-8, another number of fields,
a broken quote, more bytes than a row may have. Where a quote is never closed,
every line that it swallows is a problem, because each was a row.
"""

import csv
from collections.abc import Iterator, Mapping
from typing import IO

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")

# Number of the first line, the fields or None, and what is wrong with them.
Row = tuple[int, Mapping[str, str | None] | None, str]


def read(
  file: IO[bytes], *, delimiter: str, max_row_bytes: int
) -> Iterator[Row]:
  """The rows below the line of names.

  Args:
    file: opened for reading, at its start; a byte order mark is passed over.
    delimiter: between the fields of a line.
    max_row_bytes: a longer row is a problem.

  Raises:
    ValueError: the names can not be read, or one is there twice.
  """
  # For the process, and only ever upward: a field may be as long as a row.
  csv.field_size_limit(max(csv.field_size_limit(), max_row_bytes))
  lines = _Lines(file, max_row_bytes)
  reader = csv.reader(lines, delimiter=delimiter, strict=True)
  names = _names(lines, reader)
  while True:
    lines.start_row()
    try:
      cells = next(reader)
    except StopIteration:
      return
    except _TooLongError as error:
      yield from _problems(lines, str(error))
      continue
    except csv.Error as error:
      yield from _problems(lines, f"not CSV: {str(error).partition(' - ')[0]}")
      continue
    if not cells:
      continue  # an empty line
    if lines.not_utf8:
      yield lines.first, None, "not UTF-8"
    elif len(cells) != len(names):
      problem = f"{len(cells)} fields, but {len(names)} columns"
      yield lines.first, None, problem
    else:
      pairs = zip(names, cells, strict=True)
      yield lines.first, {name: cell or None for name, cell in pairs}, ""


def _names(lines: "_Lines", reader: Iterator[list[str]]) -> list[str]:
  lines.start_row()
  try:
    names = [name.strip() for name in next(reader, [])]
  except csv.Error as error:
    raise ValueError(f"the names of the columns: {error}") from error
  if lines.not_utf8:
    raise ValueError("the names of the columns are not UTF-8")
  for name in filter(None, names):
    if names.count(name) > 1:
      raise ValueError(f"two columns are called {name[:60]!r}")
  return names


def _problems(lines: "_Lines", reason: str) -> Iterator[Row]:
  if not lines.ended:
    yield lines.first, None, reason
    return
  for number in range(lines.first, lines.number + 1):
    yield number, None, f"the quote opened in line {lines.first} never ends"


class _TooLongError(csv.Error):
  """A row of too many bytes, which was passed over."""


class _Lines:
  """Decoded physical lines, and what is known of the row they belong to.

  An iterator that goes on after it raised, as `csv.reader` does.
  """

  def __init__(self, file: IO[bytes], max_row_bytes: int):
    self._file = file
    self._max_row_bytes = max_row_bytes
    self.number = 0  # of the last line, from 1
    self.ended = False
    self.start_row()

  def start_row(self) -> None:
    self.first = self.number + 1
    self.not_utf8 = False
    self._row_bytes = 0

  def __iter__(self) -> "_Lines":
    return self

  def __next__(self) -> str:
    """A line, with its end.

    Raises:
      _TooLongError: the row is too long; what is left of it is passed over.
    """
    line = self._file.readline(self._max_row_bytes + 1)
    if not line:
      self.ended = True
      raise StopIteration
    self.number += 1
    quoted = self._row_bytes > 0  # else csv would not ask for more of the row
    self._row_bytes += len(line)
    if self._row_bytes > self._max_row_bytes:
      self._pass_over(line, quoted)
      raise _TooLongError(f"longer than {self._max_row_bytes} bytes")
    if self.number == 1:
      line = line.removeprefix(b"\xef\xbb\xbf")
    try:
      return line.decode("utf-8")
    except UnicodeDecodeError:
      self.not_utf8 = True
      return line.decode("utf-8", errors="replace")

  def _pass_over(self, line: bytes, quoted: bool) -> None:
    """Reads to the end of the row: of the line that closes its quotes."""
    quoted ^= bool(line.count(b'"') % 2)
    while quoted or not line.endswith(b"\n"):
      at_end = line.endswith(b"\n")
      line = self._file.readline(self._max_row_bytes)
      if not line:
        self.ended = quoted
        return
      self.number += at_end
      quoted ^= bool(line.count(b'"') % 2)
