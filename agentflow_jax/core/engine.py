"""Engine: whoever answers a prompt, on device, by rule, or over a network."""

import dataclasses
import enum
import hashlib
from collections.abc import Sequence
from typing import Protocol

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import messages as messages_lib


class FinishReason(enum.StrEnum):
  """Why a completion ended.

  Example: an answer cut off at `max_tokens=16` has 16 token ids and LENGTH.
  """

  STOP = "stop"  # an eos id or a stop string
  LENGTH = "length"  # max_tokens reached
  CANCELLED = "cancelled"
  DEADLINE = "deadline"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
  """How one completion is drawn.

  `temperature=0` is greedy. `top_k=0`, `top_p=1`, `min_p=0` are off; training
  rejects anything else for a trained role, because the learner scores the
  untruncated distribution.

  Example: `SamplingParams(temperature=0.7, max_tokens=64, stop=("\\n\\n",))`
  draws at most 64 tokens and ends before an empty line.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  max_tokens: int = 256
  stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallContext:
  """Where in a run a call happens: seeds the sampler, names the session.

  Two calls with equal (seed, stream, step, task_id, member, turn, role, call)
  draw the same tokens from the same parameters and prompt, whatever else runs
  beside them. `stream` separates training from evaluation.

  Example: `CallContext(role=ModuleRole.PLANNER, task_id="q7", member=3)`.
  """

  role: messages_lib.ModuleRole
  seed: int = 0
  stream: str = "train"
  step: int = 0
  task_id: str = ""
  member: int = 0
  turn: int = 0
  call: int = 0  # nth call of this role in this turn
  deadline: deadline_lib.Deadline = deadline_lib.NEVER

  def at(
    self,
    *,
    role: messages_lib.ModuleRole | None = None,
    turn: int | None = None,
    call: int | None = None,
    deadline: deadline_lib.Deadline | None = None,
  ) -> "CallContext":
    """This context at another place of its episode.

    As `dataclasses.replace`, which takes several times as long: a turn moves
    its context about ten times, a fifth of all host time.
    """
    moved = object.__new__(CallContext)
    fields = moved.__dict__  # not a slotted class, so that this can be
    fields.update(self.__dict__)
    if role is not None:
      fields["role"] = role
    if turn is not None:
      fields["turn"] = turn
    if call is not None:
      fields["call"] = call
    if deadline is not None:
      fields["deadline"] = deadline
    return moved

  @property
  def session(self) -> tuple[str, str, int, str]:
    """Calls of one session extend each other's prompts (KV reuse)."""
    return (self.stream, self.task_id, self.member, str(self.role))

  def key_words(self) -> tuple[int, int]:
    """Two uint32 that seed this call's sampling key (design, promise 3)."""
    text = repr(
      (
        self.seed,
        self.stream,
        self.step,
        self.task_id,
        self.member,
        self.turn,
        str(self.role),
        self.call,
      )
    )
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return (
      int.from_bytes(digest[:4], "little"),
      int.from_bytes(digest[4:], "little"),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
  """One engine answer.

  `text` has neither the eos token nor the stop string. `token_ids` are the ids
  exactly as sampled, eos included, and `logprobs` (float32 values, nats) their
  log-probabilities under the sampling distribution. An engine without access
  to ids (a remote API, a rule) leaves all three id fields empty, and such a
  completion can not be trained.

  Example:
    Completion(text="4", token_ids=(19, 2), logprobs=(-0.1, -0.01),
               prompt_token_ids=(7, 8, 9), finish_reason=FinishReason.STOP,
               policy_version=3)
  """

  text: str
  finish_reason: FinishReason
  token_ids: tuple[int, ...] = ()
  logprobs: tuple[float, ...] = ()
  prompt_token_ids: tuple[int, ...] = ()
  policy_version: int = -1  # -1: not a versioned policy

  def __post_init__(self):
    if len(self.token_ids) != len(self.logprobs):
      raise ValueError(
        f"{len(self.token_ids)} token_ids but {len(self.logprobs)} logprobs"
      )


class Engine(Protocol):
  """Turns messages into a Completion.

  Example:
    completion = await engine.generate(
      [Message("user", "Question: What is 2 + 2?")],
      SamplingParams(temperature=0.0),
      CallContext(role=ModuleRole.GENERATOR, task_id="q7"))
    completion.text  # "4"

  Raises:
    EngineError: the engine failed (retryable by the caller).
    DeadlineExceededError: `context.deadline` passed first.
    PromptTooLongError: before any compute.
  """

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: SamplingParams,
    context: CallContext,
  ) -> Completion: ...
