"""Memory that a CPU device adopts: the device's array is the host's buffer."""

import jax
import numpy as np
import pytest

from agentflow_jax.models import host_memory


def _unaligned(shape):
  """float32 memory that starts four bytes behind an aligned place."""
  whole = host_memory.empty((int(np.prod(shape)) + 1,), np.dtype(np.float32))
  return whole[1:].reshape(shape)


def _buffer(array: jax.Array) -> int:
  return array.addressable_data(0).unsafe_buffer_pointer()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_empty_memory_is_adopted(dtype):
  array = host_memory.empty((33, 5), np.dtype(dtype))
  array[...] = 1
  assert array.shape == (33, 5) and array.dtype == dtype
  on_device = jax.device_put(array, jax.devices()[0])
  assert _buffer(on_device) == array.ctypes.data


def test_what_can_be_adopted_is_not_copied():
  array = host_memory.empty((8, 3), np.dtype(np.float32))
  assert host_memory.adoptable(array) is array


@pytest.mark.parametrize("transposed", [False, True])
def test_what_can_not_is_copied_once(transposed):
  array = _unaligned((8, 3))
  array[...] = np.arange(24).reshape(8, 3)
  if transposed:
    array = host_memory.adoptable(array).T
  copy = host_memory.adoptable(array)
  assert copy is not array and copy.flags.c_contiguous
  assert copy.ctypes.data % 64 == 0
  np.testing.assert_array_equal(copy, array, strict=True)
  on_device = jax.device_put(copy, jax.devices()[0])
  assert _buffer(on_device) == copy.ctypes.data
