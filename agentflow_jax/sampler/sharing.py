"""Leading pages that all rows of a decode group have, read once for all.

Flow: before a dispatch `mark` compares the prompts of each group's rows and
writes into their columns how many leading pages they have in common, and a slot
that holds them. Decode reads those pages jointly (cached_attention.py).

A prompt's keys and values depend on its tokens alone, so equal tokens mean
equal pages. That the joint product also rounds as the rows' own products do is
a property of the backend's matrix library, not of the algorithm: `keeps_bits`
tries it on the compiled program, and the sampler shares only where it holds.

Axes: S slot, T decode step.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from agentflow_jax.sampler import layout
from agentflow_jax.sampler import programs as programs_lib
from agentflow_jax.sampler import scheduler as scheduler_lib

Knob, Row = layout.Knob, layout.Row


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
  prompt = rng.integers(0, programs.vocab_size, cached, dtype=np.int32)
  scheduler = scheduler_lib.Scheduler(
    slots=geometry.slots,
    shards=geometry.shards,
    block_tokens=geometry.block_tokens,
    max_tokens=cached,
  )
  for _ in range(geometry.slots):
    scheduler.place(prompt, session=None)
  while scheduler.pending:
    cache = programs.extend(params, cache, *scheduler.take_packed())
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
