"""Protocols that let packages meet without importing each other."""

from collections.abc import Sequence
from typing import Protocol

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib


class Tokenizer(Protocol):
  """Text to ids and back.

  `encode` never produces a special token from plain text: "<|im_end|>" inside
  a tool result is ordinary characters. Only `render_chat` writes control
  tokens.

  Example: `tokenizer.decode(tokenizer.encode("Laos"))` is `"Laos"`, and
  `tokenizer.render_chat([Message("user", "Hi")])` is the prompt's ids, after
  which the model writes its answer up to one of `eos_ids`.
  """

  @property
  def vocab_size(self) -> int: ...

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """Ids that end an assistant turn."""
    ...

  @property
  def pad_id(self) -> int: ...

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`, special tokens left out."""
    ...

  def render_chat(self, messages: Sequence[messages_lib.Message]) -> list[int]:
    """Prompt ids up to and including the assistant header."""
    ...


class RewardFn(Protocol):
  """Scores a finished trajectory.

  Example: with exact match, `await reward_fn(trajectory)` is 1.0 where
  `trajectory.answer` is "Vientiane" and `task.answers` is ("Vientiane",).

  Raises:
    RewardError: the score could not be computed; the trajectory is masked.
  """

  async def __call__(self, trajectory: trajectory_lib.Trajectory) -> float: ...


class TaskSource(Protocol):
  """Random access to tasks; `position` arithmetic lives in the caller.

  Example: a list is one: `source = [Task(...), Task(...)]` has
  `len(source) == 2` and `source[1]`.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> task_lib.Task: ...
