"""Keeps what a process begins with out of garbage collection.

Hundreds of concurrent episodes make so many objects that Python looks for
garbage all the time, and every full search walks the libraries' objects too: a
fifth of the host's time per turn. They are there to stay.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def steady_heap() -> Iterator[None]:
  """Garbage that the block makes is found as ever; what was there is not.

  Example: `with steady_heap(): await trainer.run()`.
  """
  gc.collect()
  gc.freeze()
  try:
    yield
  finally:
    gc.unfreeze()
