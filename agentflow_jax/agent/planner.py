"""Planner: decides the step of a turn. The module that is trained."""

import dataclasses
from collections.abc import Sequence

from agentflow_jax.agent import asking, parsing, prompts
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib


@dataclasses.dataclass(frozen=True, slots=True)
class Planner:
  """Asks `engine` for a plan and reads it."""

  engine: engine_lib.Engine
  sampling: engine_lib.SamplingParams

  async def plan(
    self,
    *,
    question: str,
    specs: Sequence[tool_lib.ToolSpec],
    memory: str,
    max_turns: int,
    style: str,
    plan_format: str,
    analysis: str,
    context: engine_lib.CallContext,
  ) -> tuple[
    trajectory_lib.Decision | trajectory_lib.ParseFailure,
    trajectory_lib.ModuleCall,
  ]:
    """The decision of turn `context.turn`; raises as asking.ask does."""
    call = await asking.ask(
      self.engine,
      messages_lib.ModuleRole.PLANNER,
      prompts.planner(
        question=question,
        specs=specs,
        memory=memory,
        turn=context.turn,
        max_turns=max_turns,
        style=style,
        plan_format=plan_format,
        analysis=analysis,
      ),
      self.sampling,
      context,
    )
    return parsing.parse_decision(call.completion.text, specs), call
