"""The same question before and after training: matching and choosing.

records -> Pair per (question, member) -> a few pairs for the page, as many
families as possible and questions that went from wrong to right first. The
page also shows how all pairs fared, so the choice can not mislead.
"""

import dataclasses
from collections.abc import Sequence

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation.report import run_data

RIGHT, WRONG, UNSCORED, ABSENT = "right", "wrong", "unscored", "absent"

_MASKED = frozenset(r for r in trajectory_lib.StopReason if r.masked)

# What a reader learns most from first.
_INTERESTING = (
  (WRONG, RIGHT),
  (UNSCORED, RIGHT),
  (RIGHT, WRONG),
  (RIGHT, RIGHT),
  (WRONG, WRONG),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """One question's recorded trajectories; a side may be None."""

  question_id: str
  member: str
  family: str
  before: run_data.Record | None
  after: run_data.Record | None

  @property
  def task(self) -> run_data.Record:
    return run_data.mapping((self.after or self.before or {}).get("task"))

  @property
  def outcomes(self) -> tuple[str, str]:
    return outcome(self.before), outcome(self.after)


def outcome(record: run_data.Record | None) -> str:
  """RIGHT, WRONG, UNSCORED (masked by infrastructure) or ABSENT."""
  if record is None:
    return ABSENT
  reward = run_data.number(record.get("reward"))
  if reward is None or run_data.string(record.get("stop_reason")) in _MASKED:
    return UNSCORED
  return RIGHT if reward >= 1.0 else WRONG


def match(run: run_data.RunData) -> list[Pair]:
  """Pairs sorted by question id and member; later records replace earlier."""
  sides = [{_key(r): r for r in records} for records in (run.before, run.after)]
  pairs = []
  for key in sorted(sides[0].keys() | sides[1].keys()):
    before, after = sides[0].get(key), sides[1].get(key)
    task = run_data.mapping((after or before or {}).get("task"))
    pairs.append(
      Pair(
        question_id=key[0],
        member=key[1],
        family=run_data.string(task.get("family")),
        before=before,
        after=after,
      )
    )
  return pairs


def choose(pairs: Sequence[Pair], count: int = 6) -> list[Pair]:
  """At most `count` pairs of different questions, families in turn.

  Inside a family the most interesting change comes first; among equals the
  picks are spread evenly over the question ids, because neighbours tend to be
  the same question about another entity.
  """
  by_family: dict[str, list[Pair]] = {}
  seen: set[str] = set()
  for pair in sorted(pairs, key=_interest):
    if pair.question_id not in seen:
      seen.add(pair.question_id)
      by_family.setdefault(pair.family, []).append(pair)
  families = sorted(by_family)
  shares = dict.fromkeys(families, 0)
  while sum(shares.values()) < min(count, len(seen)):
    # The family with the fewest picks that still has a question, in order.
    unfilled = [f for f in families if shares[f] < len(by_family[f])]
    shares[min(unfilled, key=lambda f: shares[f])] += 1
  return [
    pair
    for family in families
    for pair in _spread(by_family[family], shares[family])
  ]


def _spread(ranked: Sequence[Pair], count: int) -> list[Pair]:
  """`count` of `ranked`, whole ranks first, evenly inside the last one."""
  chosen: list[Pair] = []
  while len(chosen) < count:
    rank = _interest(ranked[len(chosen)])[0]
    equal = [p for p in ranked if _interest(p)[0] == rank]
    wanted = min(count - len(chosen), len(equal))
    chosen += [
      equal[(2 * index + 1) * len(equal) // (2 * wanted)]
      for index in range(wanted)
    ]
  return chosen


def _interest(pair: Pair) -> tuple[int, str, str]:
  ranks = {outcomes: rank for rank, outcomes in enumerate(_INTERESTING)}
  return (
    ranks.get(pair.outcomes, len(ranks)),
    pair.question_id,
    pair.member,
  )


def _key(record: run_data.Record) -> tuple[str, str]:
  task = run_data.mapping(record.get("task"))
  # Without an id the question itself tells records apart.
  name = run_data.string(task.get("id")) or run_data.string(
    task.get("question")
  )
  return name, run_data.string(record.get("member"))
