"""Safetensors files, one tensor at a time in both directions.

The `safetensors` package checks a file's header; the bytes are then read at
their offsets into ordinary memory. (Its own readers map the file, whose pages
count as resident until it is closed; its writer wants every tensor of a file
in memory; its numpy side does not know bfloat16.)

Format: 8 bytes header length (little endian), a JSON header {name: {dtype,
shape, data_offsets}}, then the bytes of the tensors, row major.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from agentflow_jax.core import errors

_DTYPES = {
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F16": np.dtype(np.float16),
  "F32": np.dtype(np.float32),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_ALIGNMENT = 64  # of the first tensor's bytes in the file


@dataclasses.dataclass(frozen=True)
class StoredTensor:
  """Where a tensor lies in a file."""

  name: str
  file: pathlib.Path
  code: str  # of the element type, as in the header
  shape: tuple[int, ...]
  offset: int  # bytes from the start of the file

  def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
    """A fresh array of rows `start` to `stop` of the first axis; all of them.

    Raises:
      CheckpointError: an element type other than float, or the file changed
        since its header was read.
    """
    dtype = _DTYPES.get(self.code)
    if dtype is None:
      raise errors.CheckpointError(
        f"{self.file}: tensor {self.name} has element type {self.code}; "
        f"supported: {', '.join(_DTYPES)}"
      )
    start, stop, _ = slice(start, stop).indices(self.shape[0])
    shape = (stop - start, *self.shape[1:])
    row = math.prod(self.shape[1:])
    values = np.fromfile(
      self.file,
      dtype,
      math.prod(shape),
      offset=self.offset + start * row * dtype.itemsize,
    )
    if len(values) != math.prod(shape):
      raise errors.CheckpointError(
        f"{self.file}: the file ends inside tensor {self.name}"
      )
    return values.reshape(shape)


def read_header(file: pathlib.Path) -> dict[str, StoredTensor]:
  """The tensors of a file, by name.

  Raises:
    CheckpointError: the file is missing, truncated or not a safetensors file.
  """
  try:
    # Checks sizes, offsets, overlaps and element types, reads no tensor.
    with safetensors.safe_open(file, framework="numpy"):
      pass
    with open(file, "rb") as stream:
      length = int.from_bytes(stream.read(8), "little")
      header = json.loads(stream.read(length))
  except FileNotFoundError as error:
    raise errors.CheckpointError(f"{file}: no such file") from error
  except (safetensors.SafetensorError, OSError, ValueError) as error:
    raise errors.CheckpointError(
      f"{file}: not a readable safetensors file ({error})"
    ) from error
  header.pop("__metadata__", None)
  return {
    name: StoredTensor(
      name=name,
      file=file,
      code=entry["dtype"],
      shape=tuple(entry["shape"]),
      offset=8 + length + entry["data_offsets"][0],
    )
    for name, entry in header.items()
  }


@dataclasses.dataclass(frozen=True)
class PendingTensor:
  """A tensor to be written; `blocks` is called when its turn comes.

  The blocks are its rows (first axis) in order, as many at once as one likes.
  """

  name: str
  shape: tuple[int, ...]
  blocks: Callable[[], Iterable[np.ndarray]]


def write_file(
  file: pathlib.Path, tensors: Iterable[PendingTensor], dtype: np.dtype
) -> None:
  """Writes a new file, holding one block of a tensor at a time.

  Raises:
    ValueError: a tensor is not of its announced shape, or not of `dtype`.
  """
  tensors = list(tensors)
  header: dict = {"__metadata__": {"format": "pt"}}  # transformers wants it
  end = 0
  for tensor in tensors:
    start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
    header[tensor.name] = {
      "dtype": _CODES[dtype],
      "shape": tensor.shape,
      "data_offsets": (start, end),
    }
  text = json.dumps(header, separators=(",", ":")).encode("utf-8")
  text += b" " * (-(8 + len(text)) % _ALIGNMENT)
  with open(file, "xb") as stream:
    stream.write(len(text).to_bytes(8, "little"))
    stream.write(text)
    for tensor in tensors:
      rows = 0
      for block in tensor.blocks():
        _write_block(stream, tensor, block, dtype)
        rows += len(block)
        del block  # before the next one is fetched
      if rows != tensor.shape[0]:
        raise ValueError(
          f"tensor {tensor.name} has {rows} rows, not {tensor.shape[0]}"
        )


def _write_block(
  stream: BinaryIO, tensor: PendingTensor, block: np.ndarray, dtype: np.dtype
) -> None:
  if block.shape[1:] != tensor.shape[1:] or block.dtype != dtype:
    raise ValueError(
      f"tensor {tensor.name} has a block of {block.dtype}{list(block.shape)}, "
      f"it should be {dtype}{list(tensor.shape)}"
    )
  array = np.ascontiguousarray(block)
  stream.write(array.reshape(-1).view(np.uint8).data)
