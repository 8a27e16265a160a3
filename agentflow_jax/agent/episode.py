"""run_episode: one question, from the first plan to the answer.

With four modules; agent/monolithic.py has the agent of one.

  [query analysis] -> turn: plan -> command -> tool calls -> verdict -> memory
                      ... until a StopReason -> base / final / direct -> answer

| why it ends | StopReason | are the outputs written? |
|---|---|---|
| the verifier says STOP | VERIFIED | yes |
| all turns are used | MAX_TURNS | yes |
| planner tokens are used, or a prompt does not fit | MAX_TOKENS | yes |
| too many unreadable plans in a row | PARSE_FAILURE | yes |
| the turn's, the episode's or the caller's deadline | TIMEOUT | no, masked |
| an engine or a tool failed after its retries | INFRA_ERROR | no, masked |

Holds no state between calls: memory, counters and records are made here and
handed on. What this does not do: score (rewards), retry engines
(engines/retrying.py), run several episodes (rollout).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping

from absl import logging

from agentflow_jax.agent import generator as generator_lib
from agentflow_jax.agent import memory as memory_lib
from agentflow_jax.agent import monolithic, parsing, quoting
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.agent import turn as turn_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

OnTurn = Callable[[trajectory_lib.Turn], None]

# Timers may fire this early: by then a deadline counts as passed.
_CLOCK_SLACK_S = 0.02
_MAX_ANALYSIS_CHARS = 4000
# Scorers look at every character of an answer.
_MAX_OUTPUT_CHARS = 100_000
# Texts the memory budget is counted on; a turn is counted again and again.
_COUNTED_TEXTS = 256


async def run_episode(
  task: task_lib.Task,
  modules: settings_lib.AgentModules | settings_lib.MonolithicModules,
  toolbox: Mapping[str, tool_lib.Tool],
  settings: settings_lib.EpisodeSettings,
  context: engine_lib.CallContext,
  on_turn: OnTurn | None = None,
) -> trajectory_lib.Trajectory:
  """Runs the agent on `task`; the trajectory has no reward yet.

  Args:
    task: only its id and question are used; nobody sees the answers.
    modules: the four modules, or the one of agent/monolithic.py.
    toolbox: the tools; their own `spec.name` is what the planner calls them.
    settings: limits and outputs.
    context: seed, stream, step, member, and the caller's deadline; role, task
      id, turn and call are set here.
    on_turn: told of every turn when it is finished or cut short.

  Raises:
    CancelledError: the caller cancelled; nothing keeps running.
    Any other exception that is not an infrastructure failure: a bug.
  """
  if isinstance(modules, settings_lib.MonolithicModules):
    run = monolithic.Run(task, modules, toolbox, settings, context, on_turn)
  else:
    run = _Run(task, modules, toolbox, settings, context, on_turn)
  try:
    stop_reason = await run.solve()
  except errors.InfrastructureError as error:
    run.failure = f"{run.stage}: {error}"
    late = run.deadline.remaining_s() <= _CLOCK_SLACK_S
    stop_reason = (
      trajectory_lib.StopReason.TIMEOUT
      if late
      else trajectory_lib.StopReason.INFRA_ERROR
    )
    logging.warning(
      "episode %s, member %d ends as %s: %s",
      task.id,
      context.member,
      stop_reason,
      run.failure,
    )
  return run.trajectory(stop_reason)


class _Run:
  """The state of one episode; made and dropped by `run_episode`."""

  def __init__(
    self,
    task: task_lib.Task,
    modules: settings_lib.AgentModules,
    toolbox: Mapping[str, tool_lib.Tool],
    settings: settings_lib.EpisodeSettings,
    context: engine_lib.CallContext,
    on_turn: OnTurn | None,
  ):
    self.deadline = context.deadline.sooner(settings.episode_timeout_s)
    self.failure = ""
    # What is being done, for the failure text.
    self.stage = "query analysis"
    self._started_s = time.monotonic()
    self._task = task
    self._on_turn = on_turn
    tools = {tool.spec.name: tool for tool in toolbox.values()}
    self._scene = turn_lib.Scene(
      question=task.question,
      analysis="",
      tools=tools,
      specs=tuple(tool.spec for tool in tools.values()),
      modules=modules,
      settings=settings,
      count_tokens=functools.lru_cache(_COUNTED_TEXTS)(modules.count_tokens),
      context=dataclasses.replace(
        context, task_id=task.id, deadline=self.deadline
      ),
    )
    self._memory = memory_lib.Memory()
    self._turns: list[trajectory_lib.Turn] = []
    self._final_calls: list[trajectory_lib.ModuleCall] = []
    self._outputs: dict[str, str] = {}
    self._planner_tokens = 0
    self._parse_failures = 0

  async def solve(self) -> trajectory_lib.StopReason:
    """All turns, then the outputs; raises InfrastructureError."""
    settings = self._scene.settings
    try:
      if settings.query_analysis:
        await self._analyse()
      stop_reason = await self._take_turns()
    except errors.PromptTooLongError as error:
      logging.info("task %s, %s: %s", self._task.id, self.stage, error)
      stop_reason = trajectory_lib.StopReason.MAX_TOKENS
    for output in generator_lib.OUTPUTS:
      if output in settings.outputs:
        self.stage = f"{output} output"
        try:
          await self._write(output)
        except errors.PromptTooLongError as error:
          logging.info("task %s, %s: %s", self._task.id, self.stage, error)
          stop_reason = trajectory_lib.StopReason.MAX_TOKENS
    return stop_reason

  async def _analyse(self) -> None:
    scene = self._scene
    call = await scene.modules.generator.analyse(
      question=scene.question, specs=scene.specs, context=scene.context
    )
    self._final_calls.append(call)
    analysis, _ = quoting.cut_middle(
      quoting.scrub(call.completion.text.strip()), _MAX_ANALYSIS_CHARS
    )
    self._scene = dataclasses.replace(scene, analysis=analysis)

  async def _take_turns(self) -> trajectory_lib.StopReason:
    settings = self._scene.settings
    # The base answer uses no tools: alone, it needs no turns.
    max_turns = settings.max_turns
    if set(settings.outputs) == {generator_lib.BASE}:
      max_turns = 0
    for index in range(max_turns):
      turn = await self._take_turn(index)
      if turn.verdict.stop:
        return trajectory_lib.StopReason.VERIFIED
      if self._parse_failures >= settings.max_parse_failures:
        return trajectory_lib.StopReason.PARSE_FAILURE
      more = index + 1 < max_turns
      if more and self._planner_tokens >= settings.max_episode_tokens:
        return trajectory_lib.StopReason.MAX_TOKENS
    return trajectory_lib.StopReason.MAX_TURNS

  async def _take_turn(self, index: int) -> trajectory_lib.Turn:
    turn = turn_lib.OpenTurn(index=index)
    try:
      await turn_lib.take_turn(self._scene, self._memory, turn)
    except (errors.PromptTooLongError, errors.InfrastructureError) as error:
      self.stage = f"turn {index + 1}, {turn.stage}"
      if isinstance(error, errors.InfrastructureError):
        self.deadline = turn.deadline
      # Its plan was sampled, so it is trained (or masked) like the others.
      if turn.decision is not None:
        self._record(turn)
      raise
    return self._record(turn)

  def _record(self, open_turn: turn_lib.OpenTurn) -> trajectory_lib.Turn:
    turn = open_turn.freeze()
    self._turns.append(turn)
    if open_turn.memory is None:
      self._memory = self._memory.add(turn)
    else:
      self._memory = open_turn.memory.closed(turn.verdict)
    self._planner_tokens += self._tokens(turn.module_calls[0])
    if isinstance(turn.decision, trajectory_lib.ParseFailure):
      self._parse_failures += 1
    else:
      self._parse_failures = 0
    if self._on_turn is not None:
      self._on_turn(turn)
    return turn

  def _tokens(self, call: trajectory_lib.ModuleCall) -> int:
    """Prompt and completion tokens; counted from text if there are no ids."""
    completion = call.completion
    if completion.prompt_token_ids:
      return len(completion.prompt_token_ids) + len(completion.token_ids)
    count = self._scene.count_tokens
    prompt_tokens = sum(count(message.content) for message in call.messages)
    return prompt_tokens + count(completion.text)

  async def _write(self, output: str) -> None:
    scene = self._scene
    call = await scene.modules.generator.write(
      output,
      question=scene.question,
      memory=scene.render(self._memory),
      analysis=scene.analysis,
      context=scene.context.at(turn=len(self._turns)),
    )
    self._final_calls.append(call)
    text, _ = quoting.cut_middle(call.completion.text, _MAX_OUTPUT_CHARS)
    self._outputs[output] = quoting.scrub(text)

  def trajectory(
    self, stop_reason: trajectory_lib.StopReason
  ) -> trajectory_lib.Trajectory:
    """The record; a masked one has no answer."""
    versions = [
      completion.policy_version
      for turn in self._turns
      if (completion := turn.completion_of(messages_lib.ModuleRole.PLANNER))
    ]
    return trajectory_lib.Trajectory(
      task=self._task,
      member=self._scene.context.member,
      turns=tuple(self._turns),
      answer="" if stop_reason.masked else _answer(self._outputs),
      outputs=tuple(self._outputs.items()),
      stop_reason=stop_reason,
      policy_version=min(versions, default=-1),
      failure=self.failure,
      duration_s=time.monotonic() - self._started_s,
      final_calls=tuple(self._final_calls),
    )


def _answer(outputs: Mapping[str, str]) -> str:
  """From the direct text, else the final, else the base one.

  The last `<answer>` element of that text, or all of it.
  """
  for output in (generator_lib.DIRECT, generator_lib.FINAL, generator_lib.BASE):
    if output in outputs:
      text = outputs[output]
      return parsing.extract_answer(text) or text.strip()
  return ""
