"""Python_Coder_Tool: an engine writes Python for the query, a sandbox runs it.

Flow: query -> one question to the tool engine -> the first ```python block ->
one run in the sandbox -> printed output, or else the last expression's value.
Code the engine writes after the first block is not looked at, and nothing is
ever run in this process.
"""

import dataclasses
import re
import textwrap
import time
from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import asking, monty_sandbox
from agentflow_jax.tools import sandbox as sandbox_lib
from agentflow_jax.tools import text as text_lib

_OPENING = re.compile(
  r"^[ \t]*```[ \t]*(?:python3?|py)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_CLOSING = re.compile(r"^[ \t]*```", re.MULTILINE)
# Read up to here: a longer program is refused, however the text goes on.
_MAX_CHARS = 2 * sandbox_lib.MAX_CODE_CHARS


_Kind = sandbox_lib.Sandbox | type[sandbox_lib.Sandbox]


def instructions(sandbox: _Kind) -> str:
  """What the engine is told before the query."""
  style = f" {sandbox.style}" if sandbox.style else ""
  return (
    "Write one Python program for the query, in one ```python block.\n"
    "Print the result. The program has no files, no network and no input; it "
    f"may import {sandbox.modules}.{style}"
  )


def spec(sandbox: _Kind) -> tool_lib.ToolSpec:
  """The tool as the prompts show it, over one kind of sandbox."""
  missing = f"; {sandbox.missing}" if sandbox.missing else ""
  return dataclasses.replace(
    _SPEC,
    limitations=(
      _SPEC.limitations[0],
      f"Only these modules: {sandbox.modules}{missing}.",
      *_SPEC.limitations[1:],
    ),
  )


_SPEC = tool_lib.ToolSpec(
  name="Python_Coder_Tool",
  aliases=("python_coder", "Python_Code_Generator_Tool"),
  description=(
    "Writes a short Python program for one query and runs it: arithmetic, "
    "counting, dates, sorting, simulation, search over small cases."
  ),
  inputs=text_lib.query_schema(
    "What to compute, with every number and list written out."
  ),
  output="str: what the program printed, or its last expression's value",
  demos=(
    (
      'execution = tool.execute(query="Compute 8848 - 6961")',
      "Subtract two numbers.",
    ),
    (
      'execution = tool.execute(query="How many primes are there between 100'
      ' and 200?")',
      "Count with a small program.",
    ),
  ),
  limitations=(
    "No files, network, user input or environment variables.",
    "Time, memory and output are limited; the program is run once.",
    "It sees only the query, not the conversation or earlier runs.",
  ),
  best_practices=(
    "Put all the numbers into the query; it can not look anything up.",
    "Ask for one computation at a time and say what to print.",
  ),
)
# Over the default sandbox.
SPEC = spec(monty_sandbox.MontySandbox)


class PythonCoder:
  """The coding assistant and its sandbox as a core Tool.

  Example: `await tool.execute({"query": "Compute 50 + 79"}, context)` gives
  `ToolResult(output="129")`.
  """

  def __init__(
    self,
    engine: engine_lib.Engine,
    sampling: engine_lib.SamplingParams,
    sandbox: sandbox_lib.Sandbox,
    *,
    max_output_chars: int = 3500,
  ):
    """Takes over `sandbox`: `aclose` ends it.

    Args:
      engine: writes the programs.
      sampling: how it is sampled.
      sandbox: runs them.
      max_output_chars: characters of output kept; the middle is cut.

    Raises:
      ConfigError: `max_output_chars` is too small to cut to.
    """
    if max_output_chars < text_lib.MIN_CUT_CHARS:
      raise errors.ConfigError(
        f"tools.python_max_output_chars is {max_output_chars}, it must be at "
        f"least {text_lib.MIN_CUT_CHARS}"
      )
    self._engine = engine
    self._sampling = sampling
    self._sandbox = sandbox
    self._spec = spec(sandbox)
    self._instructions = instructions(sandbox)
    self._max_output_chars = max_output_chars

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return self._spec

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Has the program written and runs it once.

    The engine's missing block, an exception in the program and a limit it ran
    into are results (EXECUTION, EXECUTION, LIMIT); a program that ends without
    output or value is NO_RESULT.

    Raises:
      EngineError: the engine failed (retryable by the caller).
      ToolHostError: the sandbox failed (retryable by the caller).
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
    text = await asking.ask(
      self._engine, self._sampling, self._instructions, query, context
    )
    if isinstance(text, tool_lib.ToolResult):
      return text
    code = first_python_block(text)
    if code is None:
      return tool_lib.ToolResult(
        output="no code: the coding assistant wrote no ```python block",
        error=tool_lib.ToolErrorKind.EXECUTION,
      )
    run = await self._sandbox.run(code)
    if run.error is not None:
      return tool_lib.ToolResult(output=run.message, error=run.error)
    if not run.output:
      return tool_lib.ToolResult(
        output="the program printed nothing and has no value",
        error=tool_lib.ToolErrorKind.NO_RESULT,
      )
    output, cut = text_lib.cut_middle(run.output, self._max_output_chars)
    return tool_lib.ToolResult(output=output, truncated_chars=cut)

  async def check(self) -> None:
    """Runs a program in the sandbox and asks the engine one question.

    Raises:
      UserError: the sandbox does not work on this machine.
      EngineError: the engine does not answer.
      DeadlineExceededError: not within a minute.
    """
    await self._sandbox.check()
    await asking.check_engine(self._engine, self._sampling)

  async def aclose(self) -> None:
    """Ends the sandbox's processes."""
    await self._sandbox.aclose()


def first_python_block(text: str) -> str | None:
  """The code of the first ```python block, or None.

  A block the engine did not close (it ran out of tokens) reaches to the end.
  Linear in the length of `text`, of which only the beginning is read.
  """
  text = text[:_MAX_CHARS]
  opening = _OPENING.search(text)
  if opening is None:
    return None
  start = opening.end() + 1
  closing = _CLOSING.search(text, start)
  code = text[start : closing.start() if closing else len(text)].strip("\r\n")
  if not code.strip():
    return None
  # A block inside a list item is indented as a whole.
  return textwrap.dedent(code) if code[0] in " \t" else code
