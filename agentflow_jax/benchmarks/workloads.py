"""What the rollout benchmark asks for: prompts and completion lengths.

Flow: a `Shape` says how much of what is shared; `calls(shape, vocab, seed)`
draws the tokens. Lengths depend on the shape alone and tokens on the seed, so
every system does equal work in every pass and nobody profits from an earlier
pass. Ids are never 0, which peers use for padding.

`agentflow` is the shape of our rollouts: members of a task share its prompt,
all tasks share the system prompt, and turn t + 1 extends turn t. `plain` is a
batch with nothing in common.

No jax: peers in processes of their own import this too.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

_LENGTH_SEED = 7


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
  """Sizes of one workload, in tokens.

  Example: `Shape(name="plain", tasks=16, members=1, turns=1, system_tokens=0,
  task_tokens=256, memory_tokens=0, completion_tokens=(64, 64))`.
  """

  name: str
  tasks: int
  members: int
  turns: int
  system_tokens: int  # common to all
  task_tokens: int  # common to the members of a task
  memory_tokens: int  # new in every turn of every member
  completion_tokens: tuple[int, int]  # shortest and longest

  @property
  def rows(self) -> int:
    return self.tasks * self.members

  def prompt_tokens(self, turn: int) -> int:
    """Length of every prompt of a turn, counted from 0."""
    own = (turn + 1) * self.memory_tokens
    return self.system_tokens + self.task_tokens + own


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
  """One completion that is asked for."""

  row: int  # trajectory: task * members + member
  prompt: np.ndarray  # int32
  completion_tokens: int


def agentflow(tasks: int = 8) -> Shape:
  return Shape(
    name="agentflow",
    tasks=tasks,
    members=8,
    turns=3,
    system_tokens=512,
    task_tokens=128,
    memory_tokens=128,
    completion_tokens=(32, 96),
  )


def plain() -> Shape:
  return Shape(
    name="plain",
    tasks=16,
    members=1,
    turns=1,
    system_tokens=0,
    task_tokens=256,
    memory_tokens=0,
    completion_tokens=(64, 64),
  )


def calls(shape: Shape, vocab_size: int, seed: int) -> list[list[Call]]:
  """The calls of every turn, row by row."""
  rng = np.random.default_rng(seed)
  draw = lambda *size: rng.integers(1, vocab_size, size, dtype=np.int32)
  system = draw(shape.system_tokens)
  tasks = draw(shape.tasks, shape.task_tokens)
  memory = draw(shape.rows, shape.turns * shape.memory_tokens)
  lengths = completion_lengths(shape)
  return [
    [
      Call(
        row=row,
        prompt=np.concatenate(
          [
            system,
            tasks[row // shape.members],
            memory[row, : (turn + 1) * shape.memory_tokens],
          ]
        ),
        completion_tokens=int(lengths[turn, row]),
      )
      for row in range(shape.rows)
    ]
    for turn in range(shape.turns)
  ]


def completion_lengths(shape: Shape) -> np.ndarray:
  """int64 [turn, row], the same in every pass."""
  low, high = shape.completion_tokens
  rng = np.random.default_rng(_LENGTH_SEED)
  return rng.integers(low, high + 1, (shape.turns, shape.rows))


def batches(turn: Sequence[Call], size: int) -> list[list[Call]]:
  """A turn in static batches of up to `size` rows of like length."""
  ordered = sorted(turn, key=lambda call: call.completion_tokens)
  return [ordered[i : i + size] for i in range(0, len(ordered), size)]
