"""Keeps compiled programs on disk, so that a second start compiles little."""

import os
import pathlib


def enable(directory: str | os.PathLike) -> None:
  """Caches every program that takes a noticeable time to compile.

  Compiled code is specific to the machine it was compiled on; jax keys the
  cache by the program, its options and its own version, and the directory is
  the user's, like the run directory beside it.
  """
  import jax  # whoever only reads flags does without (cli.py)

  path = pathlib.Path(directory).absolute()
  path.mkdir(parents=True, exist_ok=True)
  jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
