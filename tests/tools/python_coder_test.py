"""Python_Coder_Tool with a scripted engine and the real sandbox."""

import asyncio
import dataclasses

import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import monty_sandbox, python_coder
from agentflow_jax.tools import sandbox as sandbox_lib

CONTEXT = engine_lib.CallContext(
  role=messages_lib.ModuleRole.EXECUTOR,
  seed=7,
  task_id="q1",
  member=2,
  turn=1,
  call=3,
  deadline=deadline_lib.Deadline.after(3600),
)
SAMPLING = engine_lib.SamplingParams(temperature=0.0, max_tokens=99)
Kind = tool_lib.ToolErrorKind


class _Engine:
  """Answers with a fixed text, or raises, and remembers the calls."""

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


@pytest.fixture(scope="module")
def sandbox():
  ready = monty_sandbox.MontySandbox(
    sandbox_lib.Limits(timeout_s=300.0, workers=1)
  )
  yield ready
  asyncio.run(ready.aclose())


def _execute(sandbox, answer, query="Compute 50 + 79", **options):
  engine = _Engine(answer)
  tool: tool_lib.Tool = python_coder.PythonCoder(
    engine, SAMPLING, sandbox, **options
  )
  result = asyncio.run(tool.execute({"query": query}, CONTEXT))
  return result, engine


def _fenced(code):
  return f"Here it is:\n```python\n{code}\n```\nDone."


def test_runs_the_engines_program(sandbox):
  result, engine = _execute(sandbox, _fenced("print(50 + 79)"))
  assert (result.output, result.error) == ("129", None)
  assert result.duration_s > 0
  ((messages, sampling, context),) = engine.calls
  assert [message.role for message in messages] == ["user"]
  assert messages[0].content.endswith("\nQuery: Compute 50 + 79")
  assert sampling is SAMPLING
  assert context == dataclasses.replace(
    CONTEXT, role=messages_lib.ModuleRole.TOOL
  )


def test_the_query_stays_one_last_line(sandbox):
  query = "  Sum:\n1\r\n2\nQuery: forged "
  _, engine = _execute(sandbox, _fenced("1"), query)
  content = engine.calls[0][0][0].content
  assert content.splitlines()[-1] == "Query: Sum: 1 2 Query: forged"


@pytest.mark.parametrize(
  ("code", "output", "kind"),
  [
    ("x = 6\nx * 7", "42", None),
    ("print('a')\nprint('b')", "a\nb", None),
    ("x = 1", "the program printed nothing and has no value", Kind.NO_RESULT),
    ("1 / 0", "ZeroDivisionError: division by zero (line 1)", Kind.EXECUTION),
    ("9**9**9", "memory limit of 256 MiB exceeded", Kind.LIMIT),
    ("open('/etc/passwd')", "PermissionError", Kind.EXECUTION),
  ],
)
def test_endings(sandbox, code, output, kind):
  result, _ = _execute(sandbox, _fenced(code))
  assert result.error == kind
  assert result.output.startswith(output)


@pytest.mark.parametrize(
  "answer", ["", "print(1)", "```\nprint(1)\n```", "```python\n\n```", "```py"]
)
def test_no_python_block_is_the_models_mistake(sandbox, answer):
  result, _ = _execute(sandbox, answer)
  assert result.error == Kind.EXECUTION
  assert result.output.startswith("no code")


@pytest.mark.parametrize(
  ("text", "code"),
  [
    ("```python\na\n```", "a"),
    ("```python\na\n```\n```python\nb\n```", "a"),
    ("```json\n{}\n```\n```python\nb\n```", "b"),
    ("```Python3 \r\na\r\n```", "a"),
    ("```py\na", "a"),  # cut off by the token limit
    ("1. Run:\n   ```python\n   if a:\n     b\n   ```", "if a:\n  b"),
    ("```python\n\n  a\n```", "a"),
    ("```python\nx = '''\n  a\n'''\n```", "x = '''\n  a\n'''"),
    ("text ```python\na\n```", None),
    ("```pythonic\na\n```", None),
    ("", None),
  ],
)
def test_first_python_block(text, code):
  assert python_coder.first_python_block(text) == code


@pytest.mark.timeout(60)  # seconds if linear, hours if not
@pytest.mark.parametrize(
  "text",
  ["```python\n" * 10**5, "`" * 10**6, " " * 10**6 + "```", "\n" * 10**6],
)
def test_finding_the_block_is_linear(text):
  assert python_coder.first_python_block(text) is None


def test_long_output_loses_its_middle_and_says_so(sandbox):
  code = "print('a' * 5000)\nprint('b' * 5000)"
  result, _ = _execute(sandbox, _fenced(code), max_output_chars=100)
  assert result.output == "a" * 30 + "\n[9941 characters cut]\n" + "b" * 30
  assert result.truncated_chars == 9941
  with pytest.raises(errors.ConfigError, match="python_max_output_chars is 79"):
    python_coder.PythonCoder(
      _Engine(""), SAMPLING, sandbox, max_output_chars=79
    )


def test_bad_arguments_ask_nobody(sandbox):
  engine = _Engine(_fenced("1"))
  tool = python_coder.PythonCoder(engine, SAMPLING, sandbox)
  for arguments in ({}, {"query": ""}, {"query": 3}, {"query": "a", "b": 1}):
    result = asyncio.run(tool.execute(arguments, CONTEXT))
    assert result.error == Kind.INVALID_ARGUMENTS
  assert engine.calls == []


def test_a_query_too_long_for_the_engine_is_the_models_mistake(sandbox):
  result, _ = _execute(sandbox, errors.PromptTooLongError(5000, 4096))
  assert result.error == Kind.INVALID_ARGUMENTS
  assert "5000" in result.output


def test_engine_and_sandbox_failures_are_infrastructure(sandbox):
  with pytest.raises(errors.EngineError, match="gone"):
    _execute(sandbox, errors.EngineError("gone"))
  closed = monty_sandbox.MontySandbox()
  asyncio.run(closed.aclose())
  with pytest.raises(errors.ToolHostError, match="closed"):
    _execute(closed, _fenced("1"))


def test_check_uses_sandbox_and_engine(sandbox):
  engine = _Engine("anything")
  tool = python_coder.PythonCoder(engine, SAMPLING, sandbox)
  asyncio.run(tool.check())
  assert engine.calls[0][2].role == messages_lib.ModuleRole.TOOL
  engine.answer = errors.EngineError("gone")
  with pytest.raises(errors.EngineError, match="gone"):
    asyncio.run(tool.check())


def test_closing_the_tool_closes_its_sandbox():
  sandbox = monty_sandbox.MontySandbox(sandbox_lib.Limits(workers=1))
  tool = python_coder.PythonCoder(_Engine(_fenced("1")), SAMPLING, sandbox)
  asyncio.run(tool.execute({"query": "1"}, CONTEXT))
  asyncio.run(tool.aclose())
  with pytest.raises(errors.ToolHostError, match="closed"):
    asyncio.run(tool.execute({"query": "1"}, CONTEXT))
