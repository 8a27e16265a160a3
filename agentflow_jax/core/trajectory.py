"""The frozen record of an episode, from one turn up to a group."""

import dataclasses
import enum

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParseFailure:
  """A model output that could not be read; a value, not an exception.

  Example: the plan "I would search." is `ParseFailure(reason="no Tool Name")`.
  """

  reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
  """What the planner decided for one turn.

  Example: `Decision(context="Laos", sub_goal="find the currency",
  tool_name="Wikipedia_Search_Tool")`.
  """

  context: str
  sub_goal: str
  tool_name: str  # the spec's name, or the model's own text if unknown
  justification: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
  """STOP or CONTINUE, with the verifier's reason.

  Example: "The capital is known.\\nConclusion: STOP" is
  `Verdict(stop=True, reason="The capital is known.")`.
  """

  stop: bool
  reason: str = ""
  parsed: bool = True  # False: unreadable, therefore CONTINUE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
  """One completion and the role it was asked for.

  Example:
    ModuleCall(role=ModuleRole.VERIFIER, messages=(Message("user", "..."),),
               completion=Completion(text="Conclusion: STOP",
                                     finish_reason=FinishReason.STOP))
  """

  role: messages_lib.ModuleRole
  messages: tuple[messages_lib.Message, ...]
  completion: engine_lib.Completion


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
  """Plan, act, verify once.

  `decision` is a ParseFailure when the planner's text was unreadable; then
  there are no calls. `calls` and `results` are parallel: a command that could
  not be read gives no call and one result with its error, so
  `len(results) >= len(calls)`.

  Example: turn 0 of "What is the capital of Laos?": decision (Laos, find the
  capital, Wikipedia_Search_Tool), one call {"query": "Laos capital"}, one
  result "Vientiane is the capital of Laos.", verdict STOP.
  """

  index: int  # from 0
  decision: Decision | ParseFailure
  command: str  # the executor's text, as written
  calls: tuple[tool_lib.ToolCall, ...]
  results: tuple[tool_lib.ToolResult, ...]
  verdict: Verdict
  module_calls: tuple[ModuleCall, ...]
  duration_s: float = 0.0

  def completion_of(
    self, role: messages_lib.ModuleRole
  ) -> engine_lib.Completion | None:
    """The first completion asked for `role` in this turn, if any."""
    for call in self.module_calls:
      if call.role == role:
        return call.completion
    return None


class StopReason(enum.StrEnum):
  """Why an episode ended.

  Example: the verifier says STOP in the second of ten turns: VERIFIED. It
  says CONTINUE ten times: MAX_TURNS.
  """

  VERIFIED = "verified"  # the verifier said STOP
  MAX_TURNS = "max_turns"
  MAX_TOKENS = "max_tokens"  # episode token budget or prompt limit reached
  TIMEOUT = "timeout"  # episode wall-clock limit
  PARSE_FAILURE = "parse_failure"  # too many unreadable plans in a row
  INFRA_ERROR = "infra_error"

  @property
  def masked(self) -> bool:
    """True where infrastructure, not the policy, decided the outcome.

    Wall-clock time is a property of hosts and tools, so a TIMEOUT can not be
    held against the tokens that were sampled (design, promise 6).
    """
    return self in (StopReason.INFRA_ERROR, StopReason.TIMEOUT)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
  """The record of one episode; `reward` is None until scored or if masked.

  `answer` is the extracted final answer ("" when there is none). `outputs`
  holds the texts asked for ("base", "final", "direct"), in that order.

  Example: one turn, answer "Vientiane", stop_reason VERIFIED, reward 1.0.
  """

  task: task_lib.Task
  member: int  # 0..G-1 inside its group
  turns: tuple[Turn, ...]
  answer: str
  outputs: tuple[tuple[str, str], ...]
  stop_reason: StopReason
  policy_version: int
  reward: float | None = None
  failure: str = ""  # what failed, for TIMEOUT and INFRA_ERROR
  duration_s: float = 0.0
  final_calls: tuple[ModuleCall, ...] = ()  # analysis and generator calls
  flags: tuple[str, ...] = ()  # of rollout/leak_audit.py
  # An Outcome of rewards/llm_judge.py; "" where none was kept.
  judgement: str = ""

  @property
  def masked(self) -> bool:
    return self.stop_reason.masked or self.reward is None

  def replace_reward(self, reward: float | None, failure: str = ""):
    """A copy with a reward; None plus a failure masks it (judge down)."""
    stop_reason = self.stop_reason
    if reward is None and failure:
      stop_reason = StopReason.INFRA_ERROR
    return dataclasses.replace(
      self,
      reward=reward,
      failure=failure or self.failure,
      stop_reason=stop_reason,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryGroup:
  """The G trajectories of one Task: the unit of group statistics.

  Example: rewards (1, 0, None, 1) have V = 3 valid members.
  """

  task: task_lib.Task
  trajectories: tuple[Trajectory, ...]

  @property
  def valid(self) -> tuple[Trajectory, ...]:
    """Members not lost to infrastructure."""
    return tuple(t for t in self.trajectories if not t.masked)
