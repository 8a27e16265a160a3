"""Base_Generator_Tool with a scripted engine."""

import asyncio
import dataclasses

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import base_generator

CONTEXT = engine_lib.CallContext(
  role=messages_lib.ModuleRole.EXECUTOR, task_id="q1", member=1, call=2
)
SAMPLING = engine_lib.SamplingParams(max_tokens=10)


class _Engine:
  def __init__(self, answer: str | Exception):
    self.answer = answer
    self.calls = []

  async def generate(self, messages, sampling, context):
    self.calls.append((messages, sampling, context))
    if isinstance(self.answer, Exception):
      raise self.answer
    return engine_lib.Completion(
      text=self.answer, finish_reason=engine_lib.FinishReason.STOP
    )


def _execute(answer, arguments):
  engine = _Engine(answer)
  tool: tool_lib.Tool = base_generator.BaseGenerator(engine, SAMPLING)
  return asyncio.run(tool.execute(arguments, CONTEXT)), engine


def test_asks_the_engine_as_a_tool():
  result, engine = _execute(" 11\n", {"query": "A prime above\n10 {x} %s"})
  assert (result.output, result.error) == ("11", None)
  assert result.duration_s > 0
  ((messages, sampling, context),) = engine.calls
  assert messages[-1].role == "user"
  assert messages[-1].content.splitlines()[-1] == (
    "Query: A prime above 10 {x} %s"
  )
  assert sampling is SAMPLING
  assert context == dataclasses.replace(
    CONTEXT, role=messages_lib.ModuleRole.TOOL
  )


def test_model_mistakes_are_results():
  result, engine = _execute("11", {"query": "\n"})
  assert result.error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS
  assert engine.calls == []
  result, _ = _execute(" \n", {"query": "q"})
  assert result.error == tool_lib.ToolErrorKind.NO_RESULT
  result, _ = _execute(errors.PromptTooLongError(9, 8), {"query": "q"})
  assert result.error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS


def test_engine_failures_travel():
  with pytest.raises(errors.EngineError, match="gone"):
    _execute(errors.EngineError("gone"), {"query": "q"})
  tool = base_generator.BaseGenerator(
    _Engine(errors.EngineError("gone")), SAMPLING
  )
  with pytest.raises(errors.EngineError, match="gone"):
    asyncio.run(tool.check())


def test_check_asks_once():
  engine = _Engine("4")
  tool = base_generator.BaseGenerator(engine, SAMPLING)
  asyncio.run(tool.check())
  asyncio.run(tool.aclose())
  ((_, sampling, context),) = engine.calls
  assert sampling is SAMPLING
  assert context.role == messages_lib.ModuleRole.TOOL
  assert 0 < context.deadline.remaining_s() <= 60
