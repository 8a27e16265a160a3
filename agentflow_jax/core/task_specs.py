"""The config's names for sources of tasks, parsed.

| spec | what it is |
|---|---|
| `worldfacts` | the embedded world |
| `jsonl:PATH` | a file of questions |
| `tfds:NAME` | a dataset that launch/prepare_data.py wrote |
| `mix:SPEC@WEIGHT[@LIMIT],...` | several of these in fixed proportions |
"""

import dataclasses
import math
import re

WORLDFACTS = "worldfacts"
JSONL = "jsonl:"
TFDS = "tfds:"
MIX = "mix:"

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
  """One source and its place in a mixture.

  Example: "tfds:nq_open@3@2000" has the weight 3 and at most 2,000 rows.
  """

  spec: str
  weight: float = 1.0
  limit: int = 0  # first rows used; 0 = all


def parse(spec: str) -> tuple[Part, ...]:
  """The parts of a spec; a single source is one part.

  Raises:
    ValueError: says what a spec looks like.

  Example: parse("mix:tfds:nq_open@3,tfds:math@1")[0].weight is 3.0.
  """
  if not spec.startswith(MIX):
    return (Part(spec=_checked(spec)),)
  parts = tuple(map(_part, spec.removeprefix(MIX).split(",")))
  if len({part.spec for part in parts}) < len(parts):
    raise ValueError(f"{spec!r} names a source twice")
  return parts


def is_dataset_name(name: str) -> bool:
  """True for what may follow "tfds:"."""
  return bool(_NAME.fullmatch(name))


def _part(text: str) -> Part:
  spec, _, rest = text.strip().partition("@")
  weight, _, limit = rest.partition("@")
  try:
    part = Part(
      spec=_checked(spec),
      weight=float(weight) if weight else 1.0,
      limit=int(limit) if limit else 0,
    )
  except ValueError as error:
    raise ValueError(
      f"{text!r} is not SPEC@WEIGHT or SPEC@WEIGHT@LIMIT: {error}"
    ) from error
  if not 0 < part.weight < math.inf or part.limit < 0:
    raise ValueError(f"{text!r}: the weight is above 0, the limit at least 0")
  return part


def _checked(spec: str) -> str:
  is_file = spec.startswith(JSONL) and len(spec) > len(JSONL)
  is_dataset = spec.startswith(TFDS) and is_dataset_name(
    spec.removeprefix(TFDS)
  )
  if spec != WORLDFACTS and not is_file and not is_dataset:
    raise ValueError(
      f'{spec!r} is not "{WORLDFACTS}", "{JSONL}PATH", "{TFDS}NAME" or '
      f'"{MIX}SPEC@WEIGHT,..."'
    )
  return spec
