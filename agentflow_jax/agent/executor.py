"""Executor: turns a decision into the text of a tool call."""

import dataclasses
from collections.abc import Sequence

from agentflow_jax.agent import asking, prompts
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib


@dataclasses.dataclass(frozen=True, slots=True)
class Executor:
  """Asks `engine` for a command; agent/tool_calls.py reads and runs it."""

  engine: engine_lib.Engine
  sampling: engine_lib.SamplingParams

  async def write_command(
    self,
    *,
    question: str,
    specs: Sequence[tool_lib.ToolSpec],
    memory: str,
    decision: trajectory_lib.Decision,
    max_calls: int,
    context: engine_lib.CallContext,
  ) -> trajectory_lib.ModuleCall:
    """The command for `decision`; raises as asking.ask does."""
    return await asking.ask(
      self.engine,
      messages_lib.ModuleRole.EXECUTOR,
      prompts.executor(
        question=question,
        specs=specs,
        memory=memory,
        decision=decision,
        max_calls=max_calls,
      ),
      self.sampling,
      context,
    )
