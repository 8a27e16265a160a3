"""Base_Generator_Tool: an engine answers the query from what it knows.

Flow: query -> one question to the tool engine -> its text. It looks nothing up
and checks nothing.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import asking
from agentflow_jax.tools import text as text_lib

_INSTRUCTIONS = (
  "Answer the query as well as you can from what you know. "
  "Be brief, show the steps that matter, and say so if you are not sure."
)

SPEC = tool_lib.ToolSpec(
  name="Base_Generator_Tool",
  aliases=("base_generator", "Generalist_Solution_Generator_Tool"),
  description=(
    "A general assistant: answers, explains, summarises, compares or reasons "
    "about one query without looking anything up."
  ),
  inputs=text_lib.query_schema(
    "The whole task, with every fact the answer should use."
  ),
  output="str: the assistant's answer",
  demos=(
    (
      'execution = tool.execute(query="Summarise in one sentence: ...")',
      "Summarise a text.",
    ),
    (
      'execution = tool.execute(query="Which of these is a mammal: bat, trout,'
      ' wren?")',
      "Answer a question of common knowledge.",
    ),
  ),
  limitations=(
    "It may state wrong or outdated facts with confidence.",
    "It sees only the query, not the conversation.",
  ),
  best_practices=(
    "Use it for reasoning and wording, not for facts that can be searched.",
    "Ask one thing at a time and check the answer with another tool.",
  ),
)


class BaseGenerator:
  """The general assistant as a core Tool.

  Example: `await tool.execute({"query": "Name a prime above 10."}, context)`
  gives `ToolResult(output="11")`.
  """

  def __init__(
    self, engine: engine_lib.Engine, sampling: engine_lib.SamplingParams
  ):
    self._engine = engine
    self._sampling = sampling

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return SPEC

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Asks the engine; an empty answer is NO_RESULT.

    Raises:
      EngineError: the engine failed (retryable by the caller).
    """
    started_s = time.perf_counter()
    result = await self._answer(arguments, context)
    return dataclasses.replace(
      result, duration_s=time.perf_counter() - started_s
    )

  async def _answer(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    query = text_lib.query_of(arguments)
    if isinstance(query, tool_lib.ToolResult):
      return query
    answer = await asking.ask(
      self._engine, self._sampling, _INSTRUCTIONS, query, context
    )
    if isinstance(answer, tool_lib.ToolResult):
      return answer
    if not answer.strip():
      return tool_lib.ToolResult(
        output="the assistant gave no answer",
        error=tool_lib.ToolErrorKind.NO_RESULT,
      )
    return tool_lib.ToolResult(output=answer.strip())

  async def check(self) -> None:
    """Asks the engine one question.

    Raises:
      EngineError: the engine does not answer.
      DeadlineExceededError: not within a minute.
    """
    await asking.check_engine(self._engine, self._sampling)

  async def aclose(self) -> None:
    """Nothing to release: the engine belongs to whoever built it."""
