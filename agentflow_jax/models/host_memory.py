"""Host memory that a CPU device takes over without a copy."""

import math
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # bytes; jax copies other buffers, so they exist twice


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """As np.empty; `jax.device_put` of it makes no copy on a CPU device."""
  size = math.prod(shape) * dtype.itemsize
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + size].view(dtype).reshape(shape)


def adoptable(array: np.ndarray) -> np.ndarray:
  """`array`, copied only if a CPU device could not take it as it is."""
  if array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0:
    return array
  copy = empty(array.shape, array.dtype)
  copy[...] = array
  return copy
