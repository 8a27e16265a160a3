"""A peer of the benchmark tests, run in a subprocess: option "batch" wins by
being the only one that does not sleep."""

import time


class _Model:
  def options(self, shape):
    return [{"batch": shape.rows, "pause_s": pause} for pause in (0.2, 0.0)]

  def generate(self, calls, pause_s):
    print("a library prints to stdout")
    time.sleep(pause_s)
    assert len({len(call.prompt) for call in calls}) == 1
    return [max(call.completion_tokens for call in calls)] * len(calls)


def load(arch):
  assert arch.vocab_size == 4096
  return _Model()
