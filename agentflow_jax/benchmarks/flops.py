"""Floating-point operations of a workload, each unique token counted once.

What an ideal system computes: every distinct prompt prefix and every drawn
token go through the layers once, and the head runs where a token is drawn.
Matrix products only (2 per multiply-add), attention causal and exact.
"""

import dataclasses

import numpy as np

from agentflow_jax.benchmarks import workloads
from agentflow_jax.models import architecture as architecture_lib


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
  """Example: two tokens at positions 0 and 1, one of them drawn from."""

  tokens: int  # that go through the layers
  attended: int  # keys seen, summed over them
  drawn: int  # that need the head

  def __add__(self, other: "Work") -> "Work":
    return Work(
      tokens=self.tokens + other.tokens,
      attended=self.attended + other.attended,
      drawn=self.drawn + other.drawn,
    )

  def flops(self, arch: architecture_lib.Architecture) -> float:
    d, h = arch.hidden_size, arch.head_dim
    query, key_value = arch.num_heads * h, arch.num_kv_heads * h
    layer = d * (2 * query + 2 * key_value) + 3 * d * arch.intermediate_size
    return 2.0 * (
      self.tokens * arch.num_layers * layer
      + self.attended * arch.num_layers * 2 * query
      + self.drawn * arch.vocab_size * d
    )


def span(start: int, tokens: int) -> Work:
  """Tokens at positions `start` and up, none of them drawn from."""
  seen = tokens * start + tokens * (tokens + 1) // 2
  return Work(tokens=tokens, attended=seen, drawn=0)


def unique(shape: workloads.Shape) -> Work:
  """A whole workload, every shared prefix once."""
  shared = shape.system_tokens
  work = span(0, shared)
  for _ in range(shape.tasks):
    work += span(shared, shape.task_tokens)
  own = shape.turns * shape.memory_tokens
  for _ in range(shape.rows):
    work += span(shared + shape.task_tokens, own)
  lengths = workloads.completion_lengths(shape)
  for turn, row_lengths in enumerate(np.asarray(lengths)):
    for length in row_lengths.tolist():
      # The last token drawn is never read.
      work += span(shape.prompt_tokens(turn), length - 1)
  return dataclasses.replace(work, drawn=int(lengths.sum()))
