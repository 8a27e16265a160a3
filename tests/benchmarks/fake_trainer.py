"""A training peer of the benchmark tests, run in a subprocess; the option that
does not sleep wins."""

import os
import time


class _Trainer:
  def options(self, shape):
    return [{"batch": shape.members, "pause_s": pause} for pause in (0.2, 0.0)]

  def step(self, found, batch, pause_s):
    print("a library prints to stdout")
    time.sleep(pause_s)
    assert len(found) % batch == 0
    return float(os.environ.get("FAKE_TRAINER_NORM", "1"))


def load(arch):
  return _Trainer()
