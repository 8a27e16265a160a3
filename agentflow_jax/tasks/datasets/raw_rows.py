"""Rows of files: JSONL, JSON, CSV, parquet, Hugging Face folders.

Flow: a file or a folder -> its data files in the order of their names -> one
`RawRow` per row, with its place. A row that can not be read is a row with a
problem, so that the caller can count and quarantine it. A file that is cut off
or damaged is an error instead: nobody knows how many rows it lost.

A folder may be what `datasets.save_to_disk` writes (`*.arrow`), a clone of a
Hugging Face dataset repository (`data/train-00000-of-00002.parquet`), or any
folder of JSONL or CSV files. If it has several splits, one must be named.
Where a folder has a `metadata.jsonl` (or .csv, .parquet), the files beside it
are what its rows speak of.
"""

import gzip
import json
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import csv_rows

MAX_ROW_BYTES = 2**20

_JSONL = (".jsonl", ".jsonl.gz", ".ndjson")
_JSON = (".json", ".json.gz")
_PARQUET = (".parquet",)
_ARROW = (".arrow",)
_SUFFIXES = _JSONL + _JSON + csv_rows.SUFFIXES + _PARQUET + _ARROW
# What WikiExtractor --json writes: JSONL without a suffix.
_WIKI_EXTRACT = re.compile(r"wiki_[0-9]+")
# JSON files beside the data that are no data.
_METADATA = ("dataset_info.json", "state.json", "dataset_dict.json")
_TABLES_OF_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_SPLITS = ("train", "validation", "valid", "dev", "test")
_BATCH_ROWS = 1000
# What `surrogateescape` makes of a byte that is no UTF-8.
_LOST_BYTE = re.compile("[\udc80-\udcff]")


class RawRow:
  """One row and its place ("FILE:LINE"); `fields` is None with a problem."""

  __slots__ = ("place", "fields", "problem")

  def __init__(
    self, place: str, fields: Mapping[str, Any] | None, problem: str = ""
  ):
    self.place = place
    self.fields = fields
    self.problem = problem


def read(source: pathlib.Path, split: str = "") -> Iterator[RawRow]:
  """All rows of a file or folder.

  Args:
    source: a file, or a folder that is searched for data files.
    split: for a folder with several: "train", "test", ...

  Raises:
    UserError: nothing is there, a file is damaged, or the split is unclear.
  """
  for path in data_files(source, split):
    try:
      yield from _read_file(path)
    except (OSError, EOFError, zlib.error) as error:
      raise errors.UserError(
        f"{path} is cut off, damaged or unreadable: {error}"
      ) from error


def data_files(source: pathlib.Path, split: str = "") -> list[pathlib.Path]:
  """The data files of a source, sorted; raises as `read` does."""
  if source.is_file():
    if not _is_data(source):
      raise errors.UserError(
        f"{source}: can not read this kind of file; known are "
        f"{', '.join(_SUFFIXES)}"
      )
    return [source]
  if not source.is_dir():
    raise errors.UserError(f"there is no file or folder {source}")
  found = sorted(
    path
    for path in source.rglob("*")
    if path.is_file() and _is_data(path) and path.name not in _METADATA
  )
  found = _without_described(found)
  splits = {name for path in found if (name := _split_of(path, source))}
  if split:
    found = [path for path in found if _split_of(path, source) == split]
  elif len(splits) > 1:
    raise errors.UserError(
      f"{source} has the splits {', '.join(sorted(splits))}; name one"
    )
  if not found:
    of_split = f" of split {split!r}" if split else ""
    raise errors.UserError(f"{source} has no data files{of_split}")
  return found


def _is_data(path: pathlib.Path) -> bool:
  return path.name.endswith(_SUFFIXES) or bool(
    _WIKI_EXTRACT.fullmatch(path.name)
  )


def _without_described(paths: list[pathlib.Path]) -> list[pathlib.Path]:
  """Leaves out what lies beside a table of files, such as GAIA's."""
  table_of: dict[pathlib.Path, pathlib.Path] = {}
  for name in reversed(_TABLES_OF_FILES):
    table_of |= {path.parent: path for path in paths if path.name == name}
  return [path for path in paths if table_of.get(path.parent, path) == path]


def _split_of(path: pathlib.Path, root: pathlib.Path) -> str:
  """The split a file belongs to by its name or a folder's, or ""."""
  for part in reversed(path.relative_to(root).parts):
    for name in _SPLITS:
      if part.partition(".")[0].partition("-")[0].startswith(name):
        return name
  return ""


def _read_file(path: pathlib.Path) -> Iterator[RawRow]:
  if path.name.endswith(_PARQUET + _ARROW):
    yield from _read_table(path)
    return
  opener: Any = gzip.open if path.suffix == ".gz" else open
  with opener(path, "rb") as file:
    if path.name.endswith(csv_rows.SUFFIXES):
      yield from _read_csv(path, file)
    elif path.name.endswith(_JSON) and _first_byte(file) == b"[":
      yield from _read_json_list(path, file)
    else:
      yield from _read_lines(path, file)


def _first_byte(file: IO[bytes]) -> bytes:
  head = file.read(4096).lstrip()[:1]
  file.seek(0)
  return head


def _read_lines(path: pathlib.Path, file: IO[bytes]) -> Iterator[RawRow]:
  number = 0
  while line := file.readline(MAX_ROW_BYTES + 1):
    number += 1
    place = f"{path}:{number}"
    whole = line.endswith(b"\n")
    if not whole and len(line) > MAX_ROW_BYTES:
      while rest := file.readline(MAX_ROW_BYTES):
        if rest.endswith(b"\n"):
          break
      yield RawRow(place, None, f"longer than {MAX_ROW_BYTES} bytes")
    elif line.strip():
      yield _parse(place, line, cut_off=not whole)


def _parse(place: str, line: bytes, *, cut_off: bool) -> RawRow:
  try:
    value = json.loads(line.decode("utf-8"))
  except UnicodeDecodeError as error:
    return RawRow(place, None, f"not UTF-8: {error.reason}")
  except (ValueError, RecursionError) as error:
    end = " (the file ends inside it)" if cut_off else ""
    return RawRow(place, None, f"not JSON: {str(error)[:100]}{end}")
  if not isinstance(value, dict):
    return RawRow(place, None, "not a JSON object")
  return RawRow(place, value)


def _read_csv(path: pathlib.Path, file: IO[bytes]) -> Iterator[RawRow]:
  tabs = path.name.removesuffix(".gz").endswith(".tsv")
  try:
    for number, row, problem in csv_rows.read(
      file, delimiter="\t" if tabs else ",", max_row_bytes=MAX_ROW_BYTES
    ):
      yield RawRow(f"{path}:{number}", row, problem)
  except ValueError as error:
    raise errors.UserError(f"{path}:1: {error}") from error


def _read_json_list(path: pathlib.Path, file: IO[bytes]) -> Iterator[RawRow]:
  """A file that is one list: its JSON is right or wrong as a whole."""
  data = file.read()
  try:
    # Bytes that are not UTF-8 become surrogates, which no UTF-8 text has.
    rows = json.loads(data.decode("utf-8", errors="surrogateescape"))
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f"{path} is no JSON list: {error}") from error
  for number, row in enumerate(rows, start=1):
    place = f"{path}:{number}"
    if not isinstance(row, dict):
      yield RawRow(place, None, "not a JSON object")
    elif len(json.dumps(row)) > MAX_ROW_BYTES:
      yield RawRow(place, None, f"longer than {MAX_ROW_BYTES} bytes")
    elif _LOST_BYTE.search(json.dumps(row, ensure_ascii=False)):
      yield RawRow(place, None, "not UTF-8")
    else:
      yield RawRow(place, row)


def _read_table(path: pathlib.Path) -> Iterator[RawRow]:
  import pyarrow as pa
  from pyarrow import parquet

  try:
    if path.suffix == ".parquet":
      batches = parquet.ParquetFile(path).iter_batches(_BATCH_ROWS)
    else:
      batches = pa.ipc.open_stream(pa.memory_map(str(path)))
    number = 0
    for batch in batches:
      for row in _rows_of_batch(batch):
        number += 1
        place = f"{path}:{number}"
        if isinstance(row, str):
          yield RawRow(place, None, row)
        elif _bytes_of(row) > MAX_ROW_BYTES:
          yield RawRow(place, None, f"longer than {MAX_ROW_BYTES} bytes")
        else:
          yield RawRow(place, row)
  except (pa.ArrowException, UnicodeDecodeError) as error:
    raise errors.UserError(
      f"{path} is cut off, damaged or no table: {str(error)[:200]}"
    ) from error


def _rows_of_batch(batch: Any) -> Iterator[dict[str, Any] | str]:
  """Each row, or what is wrong with it."""
  try:
    yield from batch.to_pylist()
    return
  except UnicodeDecodeError:
    pass  # one row's, which is found below
  for index in range(len(batch)):
    try:
      (row,) = batch.slice(index, 1).to_pylist()
    except UnicodeDecodeError as error:
      row = f"not UTF-8: {error.reason}"
    yield row


def _bytes_of(value: Any) -> int:
  if isinstance(value, str | bytes):
    return len(value)
  if isinstance(value, Mapping):
    return sum(map(_bytes_of, value.values()))
  return sum(map(_bytes_of, value)) if isinstance(value, list) else 8
