"""Set once, before jax is imported anywhere: CPU, 8 virtual devices."""

import os
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Tests, xdist's workers and the processes that tests start compile the same
# programs over and over: they share them, for as long as the tests run.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_OWNS_CACHE = _CACHE not in os.environ
if _OWNS_CACHE:
  os.environ[_CACHE] = tempfile.mkdtemp(prefix="compiled-")
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402, once it is told


def pytest_unconfigure():
  if _OWNS_CACHE:
    shutil.rmtree(os.environ[_CACHE], ignore_errors=True)


# Folders whose tests compute much, or are about the bits of optimised code.
_OPTIMISED = {"sampler", "benchmarks", "configs"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
  """Most tests compile for seconds what then runs for milliseconds.

  Processes that tests start are as users start them.
  """
  jax.config.update(
    "jax_disable_most_optimizations", item.path.parent.name not in _OPTIMISED
  )
