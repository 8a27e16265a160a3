"""The file format, against the safetensors package in both directions."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from agentflow_jax.core import errors
from agentflow_jax.hf import tensor_file


def _pending(tensors):
  return [
    tensor_file.PendingTensor(name, t.shape, lambda t=t: [t])
    for name, t in tensors.items()
  ]


def test_safetensors_reads_what_we_write(tmp_path):
  tensors = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.é": np.array([1.5], np.float32),
    "none": np.zeros((0, 4), np.float32),
    "view": np.arange(6, dtype=np.float32).reshape(2, 3).T,
  }
  file = tmp_path / "x.safetensors"
  tensor_file.write_file(file, _pending(tensors), np.dtype(np.float32))
  read = safetensors.numpy.load_file(file)
  assert read.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(read[name], value, strict=True)


def test_we_read_what_safetensors_writes(tmp_path):
  tensors = {
    "x": np.arange(6, dtype=np.float32).reshape(2, 3),
    "y": np.array([[0.5], [-3]], np.float16),
  }
  file = tmp_path / "x.safetensors"
  safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
  stored = tensor_file.read_header(file)
  assert stored.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(stored[name].read(), value, strict=True)


def test_bfloat16_round_trips(tmp_path):
  value = np.array([[1.0, -2.5], [3e38, 1e-30]], ml_dtypes.bfloat16)
  file = tmp_path / "x.safetensors"
  tensor_file.write_file(file, _pending({"x": value}), value.dtype)
  stored = tensor_file.read_header(file)["x"]
  assert stored.code == "BF16"
  np.testing.assert_array_equal(stored.read(), value, strict=True)


def test_tensors_are_fetched_one_at_a_time_and_in_order(tmp_path):
  alive, peak, order = set(), [], []

  class Tracked(np.ndarray):
    def __del__(self):
      alive.discard(id(self))

  def fetch(name):
    array = np.full((4, 4), len(order), np.float32).view(Tracked)
    alive.add(id(array))
    order.append(name)
    peak.append(len(alive))
    return array

  tensor_file.write_file(
    tmp_path / "x.safetensors",
    [
      tensor_file.PendingTensor(name, (4, 4), lambda name=name: [fetch(name)])
      for name in "abcd"
    ],
    np.dtype(np.float32),
  )
  assert order == list("abcd")
  assert max(peak) <= 2  # the one being fetched and the one just written


@pytest.mark.parametrize(
  "value", [np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float64)]
)
def test_a_tensor_that_is_not_as_announced_is_refused(value, tmp_path):
  pending = tensor_file.PendingTensor("x", (2, 3), lambda: [value])
  with pytest.raises(ValueError, match="tensor x"):
    tensor_file.write_file(
      tmp_path / "x.safetensors", [pending], np.dtype(np.float32)
    )


def test_an_existing_file_is_not_overwritten(tmp_path):
  file = tmp_path / "x.safetensors"
  file.write_bytes(b"precious")
  with pytest.raises(FileExistsError):
    tensor_file.write_file(file, [], np.dtype(np.float32))
  assert file.read_bytes() == b"precious"


def test_a_missing_file_and_a_directory_are_checkpoint_errors(tmp_path):
  with pytest.raises(errors.CheckpointError, match="no such file"):
    tensor_file.read_header(tmp_path / "x.safetensors")
  with pytest.raises(errors.CheckpointError, match="not a readable"):
    tensor_file.read_header(tmp_path)
