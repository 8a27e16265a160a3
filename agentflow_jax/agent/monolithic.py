"""The monolithic episode: one policy, one growing text, calls in tags.

  chat -> piece -> call -> <information>result</information> -> piece -> ...
                                                  ... -> <answer> or a limit

A turn is a piece that calls a tool, or one that could not be read; the piece
with the answer is the final call. Every prompt is the whole text so far, token
for token: what the policy wrote keeps its sampled ids, and what is put in is
tokenised once (core/continuing.py). So every token is computed once, and
only what the policy wrote is trained.

| why it ends | StopReason | is there an answer? |
|---|---|---|
| the policy answers before its calls are used | VERIFIED | yes |
| all calls are used | MAX_TURNS | if the last piece has one |
| the text is too long for the budget or the engine | MAX_TOKENS | no |
| too many unreadable pieces in a row | PARSE_FAILURE | no |
| the turn's, the episode's or the caller's deadline | TIMEOUT | no, masked |
| an engine or a tool failed after its retries | INFRA_ERROR | no, masked |

The last two are what agent/episode.py, which runs this, makes of exceptions.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping

from absl import logging

from agentflow_jax.agent import memory as memory_lib
from agentflow_jax.agent import policy as policy_lib
from agentflow_jax.agent import quoting, tool_calls
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.agent import tags as tags_lib
from agentflow_jax.agent import turn as turn_lib
from agentflow_jax.core import continuing, errors
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

_ROLE = messages_lib.ModuleRole
_MAX_THOUGHT_CHARS = 2000
_MAX_BODY_CHARS = 2000
_MAX_ANSWER_CHARS = 100_000


class Run:
  """The state of one episode; made and dropped by `episode.run_episode`."""

  def __init__(
    self,
    task: task_lib.Task,
    modules: settings_lib.MonolithicModules,
    toolbox: Mapping[str, tool_lib.Tool],
    settings: settings_lib.EpisodeSettings,
    context: engine_lib.CallContext,
    on_turn: Callable[[trajectory_lib.Turn], None] | None,
  ):
    self.deadline = context.deadline.sooner(settings.episode_timeout_s)
    self.failure = ""
    # What is being done, for the failure text.
    self.stage = "turn 1, policy"
    self._started_s = time.monotonic()
    self._task = task
    self._modules = modules
    self._settings = settings
    self._on_turn = on_turn
    self._context = dataclasses.replace(
      context, task_id=task.id, deadline=self.deadline
    )
    tools = {tool.spec.name: tool for tool in toolbox.values()}
    self._tags = tags_lib.Tags.of(list(tools.values()))
    # The whole text so far.
    self._messages = policy_lib.begin(
      task.question,
      self._tags,
      max_turns=settings.max_turns,
      style=settings.prompt_style,
    )
    self._turns: list[trajectory_lib.Turn] = []
    self._final_calls: list[trajectory_lib.ModuleCall] = []
    self._answer = ""

  async def solve(self) -> trajectory_lib.StopReason:
    """All pieces; raises InfrastructureError."""
    try:
      return await self._take_turns()
    except errors.PromptTooLongError as error:
      logging.info("task %s, %s: %s", self._task.id, self.stage, error)
      return trajectory_lib.StopReason.MAX_TOKENS

  def trajectory(
    self, stop_reason: trajectory_lib.StopReason
  ) -> trajectory_lib.Trajectory:
    """The record; a masked one has no answer."""
    calls = [call for turn in self._turns for call in turn.module_calls]
    versions = [
      call.completion.policy_version for call in (*calls, *self._final_calls)
    ]
    answer = "" if stop_reason.masked else self._answer
    return trajectory_lib.Trajectory(
      task=self._task,
      member=self._context.member,
      turns=tuple(self._turns),
      answer=answer,
      outputs=(("direct", answer),) if answer else (),
      stop_reason=stop_reason,
      policy_version=min(versions, default=-1),
      failure=self.failure,
      duration_s=time.monotonic() - self._started_s,
      final_calls=tuple(self._final_calls),
    )

  async def _take_turns(self) -> trajectory_lib.StopReason:
    limits, failures = self._settings, 0
    for index in range(limits.max_turns):
      call, action = await self._next_piece(index)
      if isinstance(action, tags_lib.Action) and action.is_answer:
        self._finish(call, action)
        return trajectory_lib.StopReason.VERIFIED
      await self._take_turn(index, call, action)
      unread = isinstance(action, trajectory_lib.ParseFailure)
      failures = failures + 1 if unread else 0
      if failures >= limits.max_parse_failures:
        return trajectory_lib.StopReason.PARSE_FAILURE
      if self._tokens(call) >= limits.max_episode_tokens:
        return trajectory_lib.StopReason.MAX_TOKENS
    call, action = await self._next_piece(limits.max_turns)
    self._finish(call, action)
    return trajectory_lib.StopReason.MAX_TURNS

  async def _next_piece(
    self, index: int
  ) -> tuple[
    trajectory_lib.ModuleCall, tags_lib.Action | trajectory_lib.ParseFailure
  ]:
    self.stage = f"turn {index + 1}, {_ROLE.POLICY}"
    self.deadline = self._context.deadline.sooner(self._settings.turn_timeout_s)
    call = await self._modules.policy.go_on(
      self._messages, self._tags, self._at(index, _ROLE.POLICY)
    )
    return call, self._tags.parse(call.completion.text, _cut_off(call))

  async def _take_turn(
    self,
    index: int,
    call: trajectory_lib.ModuleCall,
    action: tags_lib.Action | trajectory_lib.ParseFailure,
  ) -> None:
    """Runs the call and continues the text with what came of it."""
    turn = turn_lib.OpenTurn(
      index=index, stage=_ROLE.POLICY, module_calls=[call]
    )
    if isinstance(action, trajectory_lib.ParseFailure):
      turn.decision = action
      told = self._how_to_go_on(action)
    else:
      try:
        told = await self._act(action, turn)
      except errors.InfrastructureError:
        self._record(turn)
        raise
    turn.verdict = trajectory_lib.Verdict(stop=False)
    self._record(turn)
    if index + 1 == self._settings.max_turns:
      told = f"{told}{policy_lib.NO_CALLS_LEFT}\n"
    completion = call.completion
    self._messages = (
      *self._messages,
      messages_lib.Message(
        "assistant",
        self._tags.written(completion.text, _cut_off(call)),
        completion.token_ids,
      ),
      messages_lib.Message(continuing.OBSERVATION, told),
    )

  async def _act(self, action: tags_lib.Action, turn: turn_lib.OpenTurn) -> str:
    """The observation of a call."""
    tool = self._tags.tools[action.tag]
    turn.decision = trajectory_lib.Decision(
      context="",
      sub_goal=quoting.cut_middle(action.body, _MAX_BODY_CHARS)[0],
      tool_name=tool.spec.name,
      justification=quoting.cut_middle(action.thought, _MAX_THOUGHT_CHARS)[0],
    )
    turn.command = f"<{action.tag}>{action.body}</{action.tag}>"
    turn.stage = _ROLE.TOOL
    self.stage = f"turn {turn.index + 1}, {_ROLE.TOOL}"
    called, result = await tool_calls.run_arguments(
      tags_lib.arguments(action.body, tool.spec),
      tool,
      limits=self._settings.tool_limits,
      count_tokens=self._modules.count_tokens,
      context=self._at(turn.index, _ROLE.TOOL),
    )
    turn.outcome = tool_calls.CommandOutcome(calls=(called,), results=(result,))
    if turn.outcome.failure:
      raise errors.ToolHostError(turn.outcome.failure)
    return self._tags.observation(memory_lib.result_text(result))

  def _finish(
    self,
    call: trajectory_lib.ModuleCall,
    action: tags_lib.Action | trajectory_lib.ParseFailure,
  ) -> None:
    self._final_calls.append(call)
    if isinstance(action, tags_lib.Action) and action.is_answer:
      self._answer = quoting.cut_middle(action.body, _MAX_ANSWER_CHARS)[0]

  def _record(self, open_turn: turn_lib.OpenTurn) -> None:
    turn = open_turn.freeze()
    self._turns.append(turn)
    if self._on_turn is not None:
      self._on_turn(turn)

  def _how_to_go_on(self, failure: trajectory_lib.ParseFailure) -> str:
    """What stands in the text instead of a result; nothing of it is quoted."""
    names = ", ".join(f"<{tag}>" for tag in self._tags.tools)
    return (
      f"\n\nThat could not be used: {failure.reason}. Write one call "
      f"({names}) or the <{tags_lib.ANSWER}>, with its closing tag.\n\n"
    )

  def _at(
    self, index: int, role: messages_lib.ModuleRole
  ) -> engine_lib.CallContext:
    return self._context.at(turn=index, role=role, deadline=self.deadline)

  def _tokens(self, call: trajectory_lib.ModuleCall) -> int:
    """Of the whole text; counted from its words if there are no ids."""
    completion = call.completion
    if completion.prompt_token_ids:
      return len(completion.prompt_token_ids) + len(completion.token_ids)
    count = self._modules.count_tokens
    texts = (message.content for message in call.messages)
    return sum(map(count, texts)) + count(completion.text)


def _cut_off(call: trajectory_lib.ModuleCall) -> bool:
  return call.completion.finish_reason == engine_lib.FinishReason.LENGTH
