"""Which slots to exchange so that as few decode groups as possible have rows.

A group costs the same however many of its rows are active (decoding.py), and
rows end at different times. Exchanging two slots copies some megabytes, which
is little beside one step of a group. Pure host code.
"""

import numpy as np


def moves(
  active_S: np.ndarray, *, shards: int, group_rows: int
) -> list[tuple[int, int]]:
  """Pairs of an active and a free slot to exchange, all of them disjoint.

  Args:
    active_S: bool, which slots hold a request.
    shards: slots may be exchanged within a shard only.
    group_rows: slots of a group; groups are consecutive.

  Returns:
    (active slot, free slot) pairs; none if no group would become empty.

  Example: with groups of two and active slots 0 and 2, `[(2, 1)]`.
  """
  found: list[tuple[int, int]] = []
  slot_PJG = np.arange(len(active_S)).reshape(shards, -1, group_rows)
  for slot_JG, active_JG in zip(slot_PJG, active_S[slot_PJG], strict=True):
    count_J = active_JG.sum(axis=1)
    needed = -(-int(count_J.sum()) // group_rows)
    if np.count_nonzero(count_J) <= needed:
      continue
    order_J = np.argsort(-count_J, kind="stable")
    stay, leave = order_J[:needed], order_J[needed:]
    sources = slot_JG[leave][active_JG[leave]]
    targets = slot_JG[stay][~active_JG[stay]]
    found += zip(sources.tolist(), targets.tolist(), strict=False)
  return found
