"""Generator: the texts an episode is run for, and the query analysis."""

import dataclasses
from collections.abc import Sequence

from agentflow_jax.agent import asking, prompts
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

BASE = "base"
FINAL = "final"
DIRECT = "direct"
# The order in which outputs are written and kept.
OUTPUTS = (BASE, FINAL, DIRECT)
# The nth call of the role, fixed per text, so that asking for one more text
# does not change the sampling key of another.
_ANALYSIS_CALL = 0
_OUTPUT_CALLS = {BASE: 1, FINAL: 2, DIRECT: 3}


@dataclasses.dataclass(frozen=True, slots=True)
class Generator:
  """Asks `engine` for texts that are read by people and scored."""

  engine: engine_lib.Engine
  sampling: engine_lib.SamplingParams

  async def analyse(
    self,
    *,
    question: str,
    specs: Sequence[tool_lib.ToolSpec],
    context: engine_lib.CallContext,
  ) -> trajectory_lib.ModuleCall:
    """What the question needs; raises as asking.ask does."""
    messages = prompts.query_analysis(question=question, specs=specs)
    return await self._ask(messages, _ANALYSIS_CALL, context)

  async def write(
    self,
    output: str,
    *,
    question: str,
    memory: str,
    analysis: str,
    context: engine_lib.CallContext,
  ) -> trajectory_lib.ModuleCall:
    """The text of `output`, one of `OUTPUTS`; raises as asking.ask does."""
    if output == BASE:
      messages = prompts.base_answer(question=question)
    elif output == FINAL:
      messages = prompts.final_report(
        question=question, memory=memory, analysis=analysis
      )
    elif output == DIRECT:
      messages = prompts.direct_answer(
        question=question, memory=memory, analysis=analysis
      )
    else:
      raise ValueError(f"output {output!r} is not one of {OUTPUTS}")
    return await self._ask(messages, _OUTPUT_CALLS[output], context)

  async def _ask(
    self,
    messages: prompts.Messages,
    number: int,
    context: engine_lib.CallContext,
  ) -> trajectory_lib.ModuleCall:
    return await asking.ask(
      self.engine,
      messages_lib.ModuleRole.GENERATOR,
      messages,
      self.sampling,
      context.at(call=number),
    )
