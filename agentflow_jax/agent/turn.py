"""One turn: plan, write the command, run it, judge.

`take_turn` fills an `OpenTurn` as it goes, so that a turn which is cut short
still shows how far it came. Who continues, and why it ends, is decided in
agent/episode.py.
"""

import dataclasses
import time
from collections.abc import Mapping

from agentflow_jax.agent import memory as memory_lib
from agentflow_jax.agent import quoting, tool_calls
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

_MAX_NAME_CHARS = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
  """What all turns of an episode have in common."""

  question: str
  analysis: str
  tools: Mapping[str, tool_lib.Tool]  # by the spec's name
  specs: tuple[tool_lib.ToolSpec, ...]  # theirs, in the same order
  modules: settings_lib.AgentModules
  settings: settings_lib.EpisodeSettings
  count_tokens: memory_lib.CountTokens
  context: engine_lib.CallContext  # with the episode's deadline

  def render(self, memory: memory_lib.Memory) -> str:
    """The memory as this episode's prompts show it."""
    return memory_lib.render(
      memory,
      self.settings.memory_tokens,
      self.count_tokens,
      self.settings.prompt_style,
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class OpenTurn:
  """A turn in progress."""

  index: int
  # Of the turn; `take_turn` sets it.
  deadline: deadline_lib.Deadline = deadline_lib.NEVER
  started_s: float = dataclasses.field(default_factory=time.monotonic)
  # Who is at work, for the failure text.
  stage: messages_lib.ModuleRole = messages_lib.ModuleRole.PLANNER
  decision: trajectory_lib.Decision | trajectory_lib.ParseFailure | None = None
  command: str = ""
  outcome: tool_calls.CommandOutcome = tool_calls.CommandOutcome()
  # With this turn in it, once the verifier is asked.
  memory: memory_lib.Memory | None = None
  verdict: trajectory_lib.Verdict | None = None
  module_calls: list[trajectory_lib.ModuleCall] = dataclasses.field(
    default_factory=list
  )

  def freeze(self) -> trajectory_lib.Turn:
    """The turn as far as it came.

    Raises:
      ValueError: the planner gave no answer, so there is no turn.
    """
    if self.decision is None:
      raise ValueError(f"turn {self.index} has no decision")
    verdict = self.verdict or trajectory_lib.Verdict(
      stop=False, reason=f"cut short at the {self.stage}", parsed=False
    )
    return trajectory_lib.Turn(
      index=self.index,
      decision=self.decision,
      command=self.command,
      calls=self.outcome.calls,
      results=self.outcome.results,
      verdict=verdict,
      module_calls=tuple(self.module_calls),
      duration_s=time.monotonic() - self.started_s,
    )


async def take_turn(
  scene: Scene, memory: memory_lib.Memory, turn: OpenTurn
) -> None:
  """Fills `turn`; after an unreadable plan there is nothing to do or judge.

  Raises:
    InfrastructureError: an engine or, after its retries, a tool failed.
    PromptTooLongError: a module's prompt does not fit its engine.
  """
  turn.deadline = scene.context.deadline.sooner(scene.settings.turn_timeout_s)
  context = scene.context.at(turn=turn.index, deadline=turn.deadline)
  shown = scene.render(memory)
  turn.decision, call = await scene.modules.planner.plan(
    question=scene.question,
    specs=scene.specs,
    memory=shown,
    max_turns=scene.settings.max_turns,
    style=scene.settings.prompt_style,
    plan_format=scene.settings.plan_format,
    analysis=scene.analysis,
    context=context,
  )
  turn.module_calls.append(call)
  if isinstance(turn.decision, trajectory_lib.ParseFailure):
    turn.verdict = trajectory_lib.Verdict(stop=False)
    return
  await _act(scene, shown, turn.decision, turn, context)
  turn.stage = messages_lib.ModuleRole.VERIFIER
  turn.memory = memory.add_open(
    index=turn.index,
    decision=turn.decision,
    calls=turn.outcome.calls,
    results=turn.outcome.results,
  )
  turn.verdict, call = await scene.modules.verifier.judge(
    question=scene.question,
    specs=scene.specs,
    memory=scene.render(turn.memory),
    max_turns=scene.settings.max_turns,
    analysis=scene.analysis,
    context=context,
  )
  turn.module_calls.append(call)


async def _act(
  scene: Scene,
  shown: str,
  decision: trajectory_lib.Decision,
  turn: OpenTurn,
  context: engine_lib.CallContext,
) -> None:
  """Lets the executor write the command and runs it."""
  tool = scene.tools.get(decision.tool_name)
  if tool is None:
    name = quoting.one_line(decision.tool_name, _MAX_NAME_CHARS)
    turn.outcome = tool_calls.CommandOutcome(
      results=(
        tool_lib.ToolResult(
          output=f"no tool is called {name}; "
          f"the tools are: {', '.join(scene.tools)}",
          error=tool_lib.ToolErrorKind.UNKNOWN_TOOL,
        ),
      )
    )
    return
  turn.stage = messages_lib.ModuleRole.EXECUTOR
  call = await scene.modules.executor.write_command(
    question=scene.question,
    specs=scene.specs,
    memory=shown,
    decision=decision,
    max_calls=scene.settings.max_calls_per_turn,
    context=context,
  )
  turn.module_calls.append(call)
  turn.command = call.completion.text
  turn.stage = messages_lib.ModuleRole.TOOL
  turn.outcome = await tool_calls.run_command(
    turn.command,
    tool,
    max_calls=scene.settings.max_calls_per_turn,
    limits=scene.settings.tool_limits,
    count_tokens=scene.count_tokens,
    context=context.at(role=messages_lib.ModuleRole.TOOL),
  )
  if turn.outcome.failure:
    raise errors.ToolHostError(turn.outcome.failure)
