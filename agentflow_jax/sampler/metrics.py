"""What a sampler did: counts, rates and shares since the last reset.

`DistinctPrompts` counts the distinct prompt tokens, which is what an ideal
prefix cache would compute; `Counters` turns raw counts into the metrics a
training run logs. No jax, no clock.
"""

import bisect
import collections
import dataclasses

import numpy as np

# Prompts are forgotten beyond this, so that a server can run for weeks.
_MAX_KEPT_TOKENS = 8_000_000
_MAX_AGES = 65_536  # the latest ones count


class DistinctPrompts:
  """Counts tokens of prompts that no earlier prompt shared as a prefix.

  The prompts lie sorted. The longest prefix that one shares with any of them
  it shares with a neighbour in that order, so two comparisons do.
  """

  def __init__(self):
    self.clear()

  def clear(self) -> None:
    self._sorted: list[bytes] = []
    self._tokens = 0

  def add(self, prompt: np.ndarray) -> int:
    """Inserts int32 `prompt`; returns how many of its tokens are new."""
    if self._tokens > _MAX_KEPT_TOKENS:
      self.clear()
    key = prompt.tobytes()
    index = bisect.bisect_left(self._sorted, key)
    neighbours = self._sorted[max(0, index - 1) : index + 1]
    known = max((_common(prompt, other) for other in neighbours), default=0)
    if known < len(prompt):  # else it is the start of one that is there
      self._sorted.insert(index, key)
      self._tokens += len(prompt)
    return len(prompt) - known


def _common(prompt: np.ndarray, key: bytes) -> int:
  other = np.frombuffer(key, np.int32)
  size = min(len(prompt), len(other))
  differs = prompt[:size] != other[:size]
  first = int(differs.argmax()) if size else 0
  return first if size and differs[first] else size


@dataclasses.dataclass(slots=True, kw_only=True)
class Counters:
  """Sums since the last reset; written by the sampler's thread only."""

  requests: int = 0
  prompt_tokens: int = 0
  kept_tokens: int = 0  # of those: already in the slot
  copied_tokens: int = 0  # of those: copied from another slot
  computed_tokens: int = 0  # of those: computed
  unique_tokens: int = 0  # distinct prompt tokens, see DistinctPrompts
  chunk_tokens: int = 0  # computed with padding
  completion_tokens: int = 0
  extend_dispatches: int = 0
  decode_dispatches: int = 0
  context_tokens: int = 0  # cached ones of the active rows, once a dispatch
  shared_tokens: int = 0  # of those: read jointly with other rows
  row_steps: int = 0  # decode rows times steps, idle ones included
  extend_s: float = 0.0
  decode_s: float = 0.0
  moved_rows: int = 0  # to another slot, to empty a decode group
  cancelled: int = 0
  deadline: int = 0
  # From `sample` to a slot, of every admitted request.
  queue_ages_s: collections.deque[float] = dataclasses.field(
    default_factory=lambda: collections.deque(maxlen=_MAX_AGES)
  )

  def summary(self) -> dict[str, float]:
    """All counts, and the rates and shares made of them.

    `occupancy` is drawn tokens per computed decode row; `prefix_hit_rate` the
    reused share of prompt tokens; `shared_context` the share of the context
    that is read once for a whole group; `prefill_computed_per_unique` is 1 when
    every shared prefix was computed once.
    """
    names = {field.name for field in dataclasses.fields(self)}
    names.remove("queue_ages_s")
    ages_s = np.asarray(self.queue_ages_s or (0.0,))
    reused = self.kept_tokens + self.copied_tokens
    return {
      **{name: float(getattr(self, name)) for name in sorted(names)},
      "prefill_tokens_per_s": _ratio(self.computed_tokens, self.extend_s),
      "decode_tokens_per_s": _ratio(self.completion_tokens, self.decode_s),
      "occupancy": _ratio(self.completion_tokens, self.row_steps),
      "prefix_hit_rate": _ratio(reused, self.prompt_tokens),
      "shared_context": _ratio(self.shared_tokens, self.context_tokens),
      "prefill_computed_per_unique": _ratio(
        self.computed_tokens, self.unique_tokens
      ),
      "prefill_padding": _ratio(
        self.chunk_tokens - self.computed_tokens, self.chunk_tokens
      ),
      "queue_age_mean_s": float(ages_s.mean()),
      "queue_age_p50_s": float(np.quantile(ages_s, 0.5)),
      "queue_age_p99_s": float(np.quantile(ages_s, 0.99)),
      "queue_age_max_s": float(ages_s.max()),
    }


def _ratio(numerator: float, denominator: float) -> float:
  return float(numerator) / denominator if denominator else 0.0
