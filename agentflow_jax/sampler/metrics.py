"""What a sampler did: counts, rates and shares since the last reset.

`PromptTrie` counts the distinct prompt tokens, which is what an ideal prefix
cache would compute; `Counters` turns raw counts into the metrics a training
run logs. No jax, no clock.
"""

import collections
import dataclasses

import numpy as np

_SEGMENT_TOKENS = 64
# The trie is emptied beyond this, so that a server can run for weeks.
_MAX_TRIE_TOKENS = 8_000_000
_MAX_AGES = 65_536  # the latest ones count


class PromptTrie:
  """Counts tokens of prompts that no earlier prompt shared as a prefix.

  A trie of 64-token segments: the last, partly matching segment is compared
  with every sibling, so the count is exact.
  """

  def __init__(self):
    self.clear()

  def clear(self) -> None:
    self._root: dict = {}
    self._tokens = 0

  def add(self, prompt: np.ndarray) -> int:
    """Inserts int32 `prompt`; returns how many of its tokens are new."""
    if self._tokens > _MAX_TRIE_TOKENS:
      self.clear()
    node, known, start = self._root, 0, 0
    matching = True
    while start < len(prompt):
      segment = prompt[start : start + _SEGMENT_TOKENS]
      key = segment.tobytes()
      if matching:
        if key in node:
          known += len(segment)
        else:
          known += max((_common(segment, k) for k in node), default=0)
          matching = False
      node = node.setdefault(key, {})
      start += len(segment)
    self._tokens += len(prompt) - known
    return len(prompt) - known


def _common(segment: np.ndarray, key: bytes) -> int:
  other = np.frombuffer(key, np.int32)
  size = min(len(segment), len(other))
  differs = segment[:size] != other[:size]
  return int(differs.argmax()) if differs.any() else size


@dataclasses.dataclass(slots=True, kw_only=True)
class Counters:
  """Sums since the last reset; written by the sampler's thread only."""

  requests: int = 0
  prompt_tokens: int = 0
  kept_tokens: int = 0  # of those: already in the slot
  copied_tokens: int = 0  # of those: copied from another slot
  computed_tokens: int = 0  # of those: computed
  unique_tokens: int = 0  # distinct prompt tokens, see PromptTrie
  chunk_tokens: int = 0  # computed with padding
  completion_tokens: int = 0
  extend_dispatches: int = 0
  decode_dispatches: int = 0
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
    reused share of prompt tokens; `prefill_computed_per_unique` is 1 when
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
