"""Leading pages that all rows of a decode group have, read once for all.

Flow: before a dispatch `mark` compares the prompts of each group's rows and
writes into their columns how many leading pages they have in common, and a slot
that holds them. Decode reads those pages jointly (cached_attention.py).

A prompt's keys and values depend on its tokens alone, so equal tokens mean
equal pages. That the joint product also rounds as the rows' own products do is
a property of the backend's matrix library, not of the algorithm: `keeps_bits`
tries it on the compiled program, and the sampler shares only where it holds.

Axes: S slot, P shard, R operation, C token of a chunk, T decode step.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from agentflow_jax.sampler import layout
from agentflow_jax.sampler import programs as programs_lib

Knob, Op, Row = layout.Knob, layout.Op, layout.Row


def mark(
  columns_S: np.ndarray,
  prompts: Iterable[tuple[int, np.ndarray]],
  geometry: layout.Geometry,
) -> int:
  """Sets LEADER and SHARED of every row.

  Args:
    columns_S: int32 [S, len(Row)]; changed in place.
    prompts: (slot, prompt) of the active rows.
    geometry: of the programs.

  Returns:
    How many cached tokens of active rows are read jointly in every step.
  """
  of_groups: dict[int, dict[int, np.ndarray]] = {}
  for slot, prompt in prompts:
    of_groups.setdefault(slot // geometry.group_rows, {})[slot] = prompt
  columns_S[:, [Row.LEADER, Row.SHARED]] = 0
  together = 0
  for group, of_slots in of_groups.items():
    pages = _common(list(of_slots.values())) // geometry.page_tokens
    rows = slice(group * geometry.group_rows, (group + 1) * geometry.group_rows)
    columns_S[rows, Row.LEADER] = min(of_slots) % geometry.slots_per_shard
    columns_S[rows, Row.SHARED] = pages
    together += pages * geometry.page_tokens * len(of_slots)
  return together


def _common(prompts: list[np.ndarray]) -> int:
  """Tokens with which all prompts begin, the last of each left out.

  The last one is computed again by decode, which must not see it before.
  """
  first, *others = prompts
  count = min(map(len, prompts)) - 1
  for other in others:
    differs = first[:count] != other[:count]
    count = int(differs.argmax()) if differs.any() else count
  return count


def keeps_bits(
  programs: programs_lib.Programs, params: Any, cache: Any
) -> tuple[Any, bool]:
  """Whether rows draw the same bits when their leading pages are read jointly.

  Fills every slot with the same random tokens and decodes a window of all rows
  twice. Leaves contents behind that no request has.

  Returns:
    (cache, the answer).
  """
  geometry = programs.geometry
  pages = min(2, geometry.pages - 1)
  cached = pages * geometry.page_tokens
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, programs.vocab_size, cached, dtype=np.int32)
  for arrays in _fill(geometry, tokens):
    cache = programs.extend(params, cache, *arrays)
  columns_S = np.zeros((geometry.slots, len(Row)), np.int32)
  columns_S[:, Row.TOKEN] = rng.integers(0, programs.vocab_size, geometry.slots)
  columns_S[:, Row.CACHED] = cached
  columns_S[:, Row.LEFT] = geometry.decode_steps
  columns_S[:, Row.KEY_0] = np.arange(geometry.slots)
  knobs_S = np.ones((geometry.slots, len(Knob)), np.float32)
  knobs_S[:, Knob.MIN_P] = 0.0
  found = []
  for shared in (0, pages):
    columns_S[:, Row.SHARED] = shared
    cache, tokens_TS, logprobs_TS, drawn_S = programs.decode(
      params, cache, 1, columns_S, knobs_S
    )
    steps = int(drawn_S.max())
    found.append(
      [x[:steps].tobytes() for x in (tokens_TS, logprobs_TS)]
      + [drawn_S.tobytes()]
    )
  return cache, found[0] == found[1]


def _fill(geometry: layout.Geometry, tokens: np.ndarray):
  """`extend` arguments that put the tokens into every slot of every shard."""
  size = geometry.block_tokens
  blocks = len(tokens) // size
  wanted = [{Op.BLOCK: block} for block in range(blocks)] + [
    {Op.BLOCK: -1, Op.SLOT: slot, Op.COPY_BLOCKS: blocks}
    for slot in range(1, geometry.slots_per_shard)
  ]
  limit, shards = layout.OPERATIONS, geometry.shards
  for start in range(0, len(wanted), limit):
    batch = wanted[start : start + limit]
    ops_PR = np.zeros((shards, limit, len(Op)), np.int32)
    tokens_PRC = np.zeros((shards, limit, size), np.int32)
    for index, operation in enumerate(batch):
      for column, value in operation.items():
        ops_PR[:, index, column] = value
      block = operation[Op.BLOCK]
      if block >= 0:
        tokens_PRC[:, index] = tokens[block * size : (block + 1) * size]
    yield np.full(shards, len(batch), np.int32), ops_PR, tokens_PRC
