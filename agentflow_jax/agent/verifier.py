"""Verifier: judges whether the memory is enough to stop."""

import dataclasses
from collections.abc import Sequence

from agentflow_jax.agent import asking, parsing, prompts
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib


@dataclasses.dataclass(frozen=True, slots=True)
class Verifier:
  """Asks `engine` for a verdict and reads it."""

  engine: engine_lib.Engine
  sampling: engine_lib.SamplingParams

  async def judge(
    self,
    *,
    question: str,
    specs: Sequence[tool_lib.ToolSpec],
    memory: str,
    max_turns: int,
    analysis: str,
    context: engine_lib.CallContext,
  ) -> tuple[trajectory_lib.Verdict, trajectory_lib.ModuleCall]:
    """STOP or CONTINUE after turn `context.turn`; raises as asking.ask does.

    `memory` holds that turn, too, still without a verdict.
    """
    call = await asking.ask(
      self.engine,
      messages_lib.ModuleRole.VERIFIER,
      prompts.verifier(
        question=question,
        specs=specs,
        memory=memory,
        turn=context.turn,
        max_turns=max_turns,
        analysis=analysis,
      ),
      self.sampling,
      context,
    )
    return parsing.parse_verdict(call.completion.text), call
