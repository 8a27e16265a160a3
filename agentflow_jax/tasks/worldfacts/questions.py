"""Questions over the facts, in families, with checkable answers.

  one_hop   "What is the currency of Laos?"
            needs one search
  two_hop   "What is the currency of the country whose capital is Vientiane?"
            needs a second search for what the first one found
  compute   "What is the sum of the atomic numbers of Tin and Gold?"
            needs two searches and then Python

and, for training only, two that are steps on the way to compute:

  arithmetic  "What is the sum of 12 and 79?"                     only Python
  one_fact    "What is the sum of the atomic number of Tin and 79?"   a search

A split only asks about its own entities (split.py). Which of the possible
questions are in it, and how each is worded, follows from hashes of their ids,
so both are the same on every machine, and adding facts moves little.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.worldfacts import (
  facts,
  operations,
  relations,
  schema,
  split,
  templates,
)

DATA_SOURCE = "worldfacts"
ONE_HOP = "one_hop"
TWO_HOP = "two_hop"
COMPUTE = "compute"
ARITHMETIC = "arithmetic"
ONE_FACT = "one_fact"
# Questions per split and family; fewer where the facts give no more. Training
# asks most for what is hardest, and has two families more: arithmetic and
# one_fact are steps on the way to compute, and hold no held-out entity either.
# So few of two_hop that all its groups have about as many: of 1,600, rivers and
# moons, of which there are few, were a twelfth (a seventh of what is held out),
# and one of three seeds did not learn them.
COUNTS: Mapping[str, Mapping[str, int]] = {
  split.TRAIN: {
    ONE_HOP: 1200,
    TWO_HOP: 600,
    COMPUTE: 2400,
    ARITHMETIC: 200,
    ONE_FACT: 600,
  },
  split.HELD_OUT: {ONE_HOP: 100, TWO_HOP: 100, COMPUTE: 100},
}
# Of arithmetic questions; the number in a one_fact question is at most the
# fact it meets.
_MAX_NUMBER = 999
# Of one entity in `compute` questions, on either side: enough to choose from.
_PARTNERS = 64
_ARITHMETIC_CANDIDATES = 300  # per operation

_OPERATORS: Mapping[schema.Operation, Callable[[int, int], int]] = {
  schema.Operation.SUM: lambda a, b: a + b,
  schema.Operation.DIFFERENCE: lambda a, b: a - b,
  schema.Operation.PRODUCT: lambda a, b: a * b,
}


class Candidate(NamedTuple):
  """A question that can be asked; `make` writes it.

  `group` is what it asks for: an attribute with its kind, and for `compute`
  the operation before them. There are more than a hundred thousand, made
  whenever a program starts: a tuple takes a third of a dataclass's time.
  """

  id: str
  group: str
  make: Callable[[], task_lib.Task]


@functools.lru_cache(maxsize=2)
def tasks(split_name: str) -> tuple[task_lib.Task, ...]:
  """The default questions of a split, `split.TRAIN` or `split.HELD_OUT`.

  The families take turns, so every run of three questions has all three as
  long as each has some left.
  """
  chosen = [
    choose(candidates(split_name, family), count)
    for family, count in COUNTS[split_name].items()
  ]
  in_order = _in_turn([iter(queue) for queue in chosen])
  return tuple(candidate.make() for candidate in in_order)


def candidates(split_name: str, family: str) -> list[Candidate]:
  """All questions of a family that a split can ask."""
  members = split.members(split_name)
  find = {
    ONE_HOP: _one_hop,
    TWO_HOP: _two_hop,
    COMPUTE: _compute,
    ARITHMETIC: _arithmetic,
    ONE_FACT: _one_fact,
  }[family]
  return list(find(members))


def choose(found: Sequence[Candidate], count: int) -> list[Candidate]:
  """`count` of them, in turn from every group, so that no group rules.

  The first parts of the groups' names take turns before the rest does: of the
  operations, products exist for one attribute only and would be rare.
  """
  groups: dict[str, dict[str, list[Candidate]]] = {}
  for candidate in sorted(found, key=lambda found: _digest(found.id)):
    first = candidate.group.partition("/")[0]
    groups.setdefault(first, {}).setdefault(candidate.group, []).append(
      candidate
    )
  merged = [
    _in_turn([iter(queue) for _, queue in sorted(same.items())])
    for _, same in sorted(groups.items())
  ]
  return list(itertools.islice(_in_turn(merged), count))


def _in_turn(queues: Iterable[Iterator[Candidate]]) -> Iterator[Candidate]:
  """One of every queue, again and again, until all are empty."""
  for row in itertools.zip_longest(*queues):
    yield from (candidate for candidate in row if candidate is not None)


def _one_hop(members: Sequence[schema.Entity]) -> Iterator[Candidate]:
  for entity in members:
    for attribute in relations.KINDS[entity.kind].attributes:
      if attribute.name in entity.values:
        task_id = f"{ONE_HOP}/{entity.slug}/{attribute.name}"
        yield Candidate(
          id=task_id,
          group=f"{ONE_HOP}/{entity.kind}/{attribute.name}",
          make=functools.partial(
            _value_task, task_id, ONE_HOP, attribute, entity, entity.reference
          ),
        )


def _two_hop(members: Sequence[schema.Entity]) -> Iterator[Candidate]:
  for entity in members:
    for link in relations.KINDS[entity.kind].attributes:
      target = facts.target(entity, link)
      for hop in link.hops:
        if target is None or hop not in target.values:
          continue
        task_id = f"{TWO_HOP}/{entity.slug}/{link.name}/{hop}"
        described = templates.fill(
          _pick(link.described, f"{task_id}/described"), x=entity.reference
        )
        attribute = relations.KINDS[target.kind].attribute(hop)
        yield Candidate(
          id=task_id,
          group=f"{TWO_HOP}/{entity.kind}/{link.name}/{hop}",
          make=functools.partial(
            _value_task, task_id, TWO_HOP, attribute, target, described
          ),
        )


def _compute(members: Sequence[schema.Entity]) -> Iterator[Candidate]:
  for kind in relations.KINDS.values():
    # "the heights of A and B and C" could be split in two places.
    named = [
      entity
      for entity in members
      if entity.kind == kind.name and " and " not in entity.name
    ]
    for attribute in kind.attributes:
      having = [
        (entity, entity.number(attribute.name))
        for entity in named
        if attribute.operations and attribute.name in entity.values
      ]
      for operation in attribute.operations:
        prefix = f"{COMPUTE}/{operation}/{attribute.name}"
        group = f"{operation}/{kind.name}/{attribute.name}"
        for (one, n), (other, m) in _pairs(having):
          if n != m:
            task_id = f"{prefix}/{one.slug}/{other.slug}"
            yield Candidate(
              id=task_id,
              group=group,
              make=functools.partial(
                _compute_task, task_id, operation, attribute, one, other
              ),
            )


def _pairs(items: Sequence[tuple[schema.Entity, int]]):
  """Every item with those close behind it; few have so many others."""
  for index, item in enumerate(items):
    for other in items[index + 1 : index + 1 + _PARTNERS]:
      yield item, other


def _arithmetic(members: Sequence[schema.Entity]) -> Iterator[Candidate]:
  """Two numbers, which follow from the question's place in the list."""
  del members
  for operation in schema.Operation:
    for index in range(_ARITHMETIC_CANDIDATES):
      task_id = f"{ARITHMETIC}/{operation}/{index}"
      a, b = (_number(f"{task_id}/{side}", _MAX_NUMBER) for side in "ab")
      if a != b:
        yield Candidate(
          id=task_id,
          group=str(operation),
          make=functools.partial(
            _operand_task,
            task_id,
            ARITHMETIC,
            operation,
            (str(a), str(b)),
            a,
            b,
          ),
        )


def _one_fact(members: Sequence[schema.Entity]) -> Iterator[Candidate]:
  """One attribute of one entity, and a number of a similar size."""
  for entity in members:
    for attribute in relations.KINDS[entity.kind].attributes:
      if attribute.name not in entity.values or " and " in entity.name:
        continue
      for operation in attribute.operations:
        task_id = f"{ONE_FACT}/{operation}/{entity.slug}/{attribute.name}"
        a = entity.number(attribute.name)
        b = _number(task_id, max(a, 9))
        if a == b:
          continue
        quantity = templates.fill(
          operations.OPERAND, singular=attribute.singular, x=entity.reference
        )
        yield Candidate(
          id=task_id,
          group=f"{operation}/{entity.kind}/{attribute.name}",
          make=functools.partial(
            _operand_task,
            task_id,
            ONE_FACT,
            operation,
            (quantity, str(b)),
            a,
            b,
          ),
        )


def _value_task(
  task_id: str,
  family: str,
  attribute: schema.Attribute,
  holder: schema.Entity,
  reference: str,
) -> task_lib.Task:
  """Asks for an attribute of `holder`, which is called `reference`."""
  template = _pick(attribute.questions, task_id)
  return task_lib.Task(
    id=task_id,
    question=templates.fill(template, x=reference),
    answers=holder.values[attribute.name],
    data_source=DATA_SOURCE,
    scorer="numeric_match" if attribute.numeric else "exact_match",
    family=family,
  )


def _compute_task(
  task_id: str,
  operation: schema.Operation,
  attribute: schema.Attribute,
  one: schema.Entity,
  other: schema.Entity,
) -> task_lib.Task:
  """Asks for a number made of an attribute of two entities."""
  smaller, larger = sorted(
    (one, other), key=lambda entity: entity.number(attribute.name)
  )
  wordings = operations.COMPUTE_QUESTIONS[operation]
  if operation == schema.Operation.DIFFERENCE:
    wordings = (*wordings, *attribute.comparisons)
  template = _pick(wordings, task_id)
  a, b = larger, smaller
  if template not in attribute.comparisons and _digest(task_id)[0] % 2:
    # Only a comparison says which is the larger; elsewhere either comes first.
    a, b = b, a
  result = _OPERATORS[operation](
    larger.number(attribute.name), smaller.number(attribute.name)
  )
  return task_lib.Task(
    id=task_id,
    question=templates.fill(
      template, plural=attribute.plural, a=a.reference, b=b.reference
    ),
    answers=(str(result),),
    data_source=DATA_SOURCE,
    scorer="numeric_match",
    family=COMPUTE,
  )


def _operand_task(
  task_id: str,
  family: str,
  operation: schema.Operation,
  operands: tuple[str, str],
  a: int,
  b: int,
) -> task_lib.Task:
  """Asks for a number made of two operands, whose values are `a` and `b`."""
  template = _pick(operations.OPERAND_QUESTIONS[operation], task_id)
  result = _OPERATORS[operation](max(a, b), min(a, b))
  return task_lib.Task(
    id=task_id,
    question=templates.fill(template, a=operands[0], b=operands[1]),
    answers=(str(result),),
    data_source=DATA_SOURCE,
    scorer="numeric_match",
    family=family,
  )


def _number(key: str, largest: int) -> int:
  """A number in [2, largest] that follows from `key`."""
  return 2 + int.from_bytes(_digest(key), "big") % (largest - 1)


def _pick(wordings: Sequence[str], key: str) -> str:
  return wordings[int.from_bytes(_digest(key)[1:5], "big") % len(wordings)]


def _digest(key: str) -> bytes:
  return hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest()
