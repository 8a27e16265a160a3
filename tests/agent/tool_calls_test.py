"""Several calls in a command, refusals, and what a tool may return."""

import asyncio

import pytest

from agentflow_jax.agent import tool_calls
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.testing import fake_tools

KIND = tool_lib.ToolErrorKind


def _run(command, tool, *, max_calls=8, deadline=deadline_lib.NEVER, **limits):
  limits = {
    "timeout_s": 30.0,
    "retries": 0,
    "max_output_chars": 1000,
    "max_output_tokens": 1000,
    "first_delay_s": 0.0,
    **limits,
  }
  context = engine_lib.CallContext(
    role=messages_lib.ModuleRole.TOOL, deadline=deadline
  )
  return asyncio.run(
    tool_calls.run_command(
      command,
      tool,
      max_calls=max_calls,
      limits=tool_calls.ToolLimits(**limits),
      count_tokens=_count_words,
      context=context,
    )
  )


def _count_words(text):
  return len(text.split())


class _Fails(fake_tools.EchoTool):
  """Echoes, but for the query "bad"."""

  async def answer(self, query):
    if query == "bad":
      return tool_lib.ToolResult(output="no", error=KIND.EXECUTION)
    return await super().answer(query)


def test_calls_run_in_order_and_one_failing_keeps_the_others(make_command):
  tool = _Fails()
  outcome = _run(make_command("a", "bad", "c"), tool)
  assert [c["query"] for c in tool.calls] == ["a", "bad", "c"]
  assert [c.arguments["query"] for c in outcome.calls] == ["a", "bad", "c"]
  assert [(r.output, r.error) for r in outcome.results] == [
    ("a", None),
    ("no", KIND.EXECUTION),
    ("c", None),
  ]
  assert outcome.failure == ""


def test_refused_arguments_stay_in_their_place():
  command = (
    "```python\ntool.execute(query=1)\ntool.execute(query=x)\n"
    'tool.execute(query="ok")\n```'
  )
  tool = fake_tools.EchoTool()
  outcome = _run(command, tool)
  assert [r.error for r in outcome.results] == [
    KIND.INVALID_ARGUMENTS,
    KIND.INVALID_ARGUMENTS,
    None,
  ]
  assert outcome.results[0].output == "query must be string"
  assert outcome.results[1].output == "argument query: not a literal value"
  assert [dict(c.arguments) for c in outcome.calls] == [
    {"query": 1},
    {},
    {"query": "ok"},
  ]
  assert tool.calls == [{"query": "ok"}]


def test_calls_beyond_the_limit_are_refused_and_counted(make_command):
  tool = fake_tools.EchoTool()
  outcome = _run(make_command("a", "b", "c", "d"), tool, max_calls=2)
  assert len(tool.calls) == len(outcome.calls) == 2
  assert outcome.results[2].error is KIND.LIMIT
  assert outcome.results[2].output.startswith("2 further calls refused")


def test_an_infrastructure_failure_ends_the_command(make_command):
  class Breaks(fake_tools.EchoTool):
    async def answer(self, query):
      if query == "bad":
        raise errors.ToolHostError("gone")
      return await super().answer(query)

  tool = Breaks()
  outcome = _run(make_command("a", "bad", "c"), tool)
  assert [r.output for r in outcome.results] == [
    "a",
    "Echo_Tool failed after 1 tries: ToolHostError: gone",
  ]
  assert outcome.failure == outcome.results[1].output
  assert len(tool.calls) == 2


class _Returns(fake_tools.FakeTool):
  def __init__(self, value):
    super().__init__("Returns")
    self._value = value

  async def answer(self, query):
    return self._value


# A tool's author may have no type checker.
_NOT_TEXT = tool_lib.ToolResult(output=3)  # pyright: ignore


@pytest.mark.parametrize("value", [None, "text", _NOT_TEXT])
def test_a_tool_that_returns_something_else_is_infrastructure(
  make_command, value
):
  outcome = _run(make_command("a"), _Returns(value))
  assert outcome.results[0].error is KIND.INFRASTRUCTURE
  assert "not a ToolResult of text" in outcome.failure


def test_a_query_too_long_for_the_tools_engine_is_the_models_limit(
  make_command,
):
  class TooLong(fake_tools.FakeTool):
    async def answer(self, query):
      raise errors.PromptTooLongError(9, 8)

  tool = TooLong("Long")
  outcome = _run(make_command("a"), tool, retries=3)
  assert outcome.results[0].error is KIND.LIMIT
  assert outcome.failure == ""
  assert len(tool.calls) == 1


def test_output_is_made_encodable_and_errors_are_one_bounded_line(make_command):
  output = "a\ud800b"
  result = _run(
    make_command("a"), _Returns(tool_lib.ToolResult(output=output))
  ).results[0]
  assert result.output == "a?b"

  class Loud(fake_tools.FakeTool):
    async def answer(self, query):
      raise RuntimeError("line\n" * 100_000)

  result = _run(make_command("a"), Loud("Loud")).results[0]
  assert "\n" not in result.output
  assert len(result.output) < 500


def test_tools_own_truncation_is_added(make_command):
  value = tool_lib.ToolResult(output="x" * 200, truncated_chars=7)
  result = _run(
    make_command("a"), _Returns(value), max_output_chars=100
  ).results[0]
  assert len(result.output) == 100
  kept = 100 - (len(result.output) - result.output.count("x"))
  assert result.truncated_chars == 7 + 200 - kept


def test_no_retry_past_the_deadline(make_command):
  tool = fake_tools.FlakyTool(1)
  deadline = deadline_lib.Deadline.after(3)
  outcome = _run(
    make_command("a"), tool, retries=3, first_delay_s=60.0, deadline=deadline
  )
  assert len(tool.calls) == 1
  assert outcome.failure


def test_a_try_gets_the_sooner_deadline(make_command):
  tool = fake_tools.EchoTool()
  deadline = deadline_lib.Deadline.after(1000)
  _run(make_command("a"), tool, timeout_s=10.0, deadline=deadline)
  assert tool.contexts[0].deadline < deadline
  _run(make_command("a"), tool, timeout_s=10_000.0, deadline=deadline)
  assert tool.contexts[1].deadline == deadline


def test_output_is_cut_to_tokens_and_keeps_both_ends(make_command):
  class Words(fake_tools.EchoTool):
    async def answer(self, query):
      return tool_lib.ToolResult(output=" ".join(f"w{i}" for i in range(200)))

  outcome = _run(make_command("a"), Words(), max_output_tokens=50)
  (result,) = outcome.results
  assert _count_words(result.output) <= 50
  assert result.output.startswith("w0 w1 w2 ")
  assert result.output.endswith(" w198 w199")
  assert f"[... {result.truncated_chars} characters cut ...]" in result.output
  whole = _run(make_command("a"), Words(), max_output_tokens=1000)
  assert whole.results[0].truncated_chars == 0
