"""Runs the calls of a command, each in its own deadline.

The one place where code of others (tools, possibly a user's) meets the
episode: whatever a tool does, the answer is a `ToolResult`. The model's
mistakes come back as they are. Infrastructure failures (an exception, no
answer in time, a typed infrastructure error) are retried with jittered
back-off; when retries are spent the result says so and the episode ends as
INFRA_ERROR.

What this does not do: stop a tool that blocks the event loop. A tool that
computes must do so in a process or thread of its own.
"""

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from agentflow_jax.agent import arguments as arguments_lib
from agentflow_jax.agent import commands, quoting
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

# Tokens of a text, as the planner's tokenizer counts them.
CountTokens = Callable[[str], int]

# How long a cancelled tool may take to clean up before it is abandoned.
_GRACE_S = 0.5
_MAX_ERROR_CHARS = 300
_MAX_DELAY_S = 8.0

# Not the sampling keys and not the global generator: jitter must change
# neither tokens nor anybody's seeded numbers.
_jitter = random.Random()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
  """What one call may take."""

  timeout_s: float
  # Further tries after an infrastructure failure.
  retries: int
  # Characters and tokens of the output that are kept; the middle is cut.
  max_output_chars: int
  max_output_tokens: int
  # Before the first retry; doubles each time, at most 8 s, jittered.
  first_delay_s: float = 0.25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcome:
  """Calls and their results, in the order written.

  `results[k]` answers `calls[k]`; a command without a readable call and a
  refusal of further calls are results without a call, at the end. A call
  whose arguments were refused is kept, as far as they could be read.
  """

  calls: tuple[tool_lib.ToolCall, ...] = ()
  results: tuple[tool_lib.ToolResult, ...] = ()

  @property
  def failure(self) -> str:
    """What failed, if infrastructure did; always the last result."""
    if self.results:
      last = self.results[-1]
      if last.error is not None and last.error.is_infrastructure:
        return last.output
    return ""


async def run_command(
  command: str,
  tool: tool_lib.Tool,
  *,
  max_calls: int,
  limits: ToolLimits,
  count_tokens: CountTokens,
  context: engine_lib.CallContext,
) -> CommandOutcome:
  """Parses the executor's text, then checks and runs call by call.

  Calls beyond `max_calls` are refused in one result. An infrastructure
  failure ends the command; the results before it are kept.
  """
  parsed = commands.parse_command(command)
  if isinstance(parsed, trajectory_lib.ParseFailure):
    return CommandOutcome(
      results=(_refused(parsed.reason, tool_lib.ToolErrorKind.NO_CALL),)
    )
  outcome = CommandOutcome()
  for number, arguments in enumerate(parsed[:max_calls]):
    if number != context.call:
      context = context.at(call=number)
    call, result = await run_arguments(
      arguments,
      tool,
      limits=limits,
      count_tokens=count_tokens,
      context=context,
    )
    outcome = CommandOutcome(
      calls=(*outcome.calls, call), results=(*outcome.results, result)
    )
    if outcome.failure:
      return outcome
  refused = len(parsed) - max_calls
  if refused <= 0:
    return outcome
  result = _refused(
    f"{refused} further calls refused, at most {max_calls} in a turn",
    tool_lib.ToolErrorKind.LIMIT,
  )
  return dataclasses.replace(outcome, results=(*outcome.results, result))


async def run_arguments(
  arguments: commands.Arguments | trajectory_lib.ParseFailure,
  tool: tool_lib.Tool,
  *,
  limits: ToolLimits,
  count_tokens: CountTokens,
  context: engine_lib.CallContext,
) -> tuple[tool_lib.ToolCall, tool_lib.ToolResult]:
  """One call: arguments checked, run as in `run_call`, cut to its tokens."""
  call, result = await _checked_call(arguments, tool, limits, context)
  return call, _cut_to_tokens(result, limits.max_output_tokens, count_tokens)


async def run_call(
  tool: tool_lib.Tool,
  arguments: Mapping[str, Any],
  limits: ToolLimits,
  context: engine_lib.CallContext,
) -> tool_lib.ToolResult:
  """One call with retries; never raises but CancelledError.

  The output is at most `limits.max_output_chars` long and `truncated_chars`
  says how much is gone. `context.deadline` ends retries early.
  """
  name = tool.spec.name
  tries = 0
  while True:
    result = await _one_try(tool, arguments, limits, context)
    tries += 1
    if result.error is None or not result.error.is_infrastructure:
      return result
    delay_s = min(_MAX_DELAY_S, limits.first_delay_s * 2 ** (tries - 1))
    delay_s *= _jitter.uniform(0.5, 1.0)
    logging.warning(
      "tool %s failed (try %d of %d): %s",
      name,
      tries,
      limits.retries + 1,
      result.output,
    )
    if tries > limits.retries or delay_s >= context.deadline.remaining_s():
      return dataclasses.replace(
        result, output=f"{name} failed after {tries} tries: {result.output}"
      )
    await asyncio.sleep(delay_s)


async def _checked_call(
  arguments: commands.Arguments | trajectory_lib.ParseFailure,
  tool: tool_lib.Tool,
  limits: ToolLimits,
  context: engine_lib.CallContext,
) -> tuple[tool_lib.ToolCall, tool_lib.ToolResult]:
  if isinstance(arguments, trajectory_lib.ParseFailure):
    problem, arguments = arguments.reason, {}
  else:
    problem = arguments_lib.validate_arguments(arguments, tool.spec)
  call = tool_lib.ToolCall(tool_name=tool.spec.name, arguments=arguments)
  if problem is None:
    return call, await run_call(tool, arguments, limits, context)
  return call, _refused(problem, tool_lib.ToolErrorKind.INVALID_ARGUMENTS)


async def _one_try(
  tool: tool_lib.Tool,
  arguments: Mapping[str, Any],
  limits: ToolLimits,
  context: engine_lib.CallContext,
) -> tool_lib.ToolResult:
  """Runs the tool in a task of its own, so that none can hold us up.

  `asyncio.timeout` would wait for a tool that swallows its cancellation; a
  task is cancelled, given a moment, and left behind.
  """
  deadline = context.deadline.sooner(limits.timeout_s)
  started_s = time.monotonic()
  task = asyncio.ensure_future(
    _guarded(tool, arguments, context.at(deadline=deadline))
  )
  try:
    finished, _ = await asyncio.wait({task}, timeout=deadline.remaining_s())
  finally:
    if not task.done():
      await _cancelled(task, tool.spec.name)
  if not finished:
    result = _refused(
      "no answer before the episode's deadline"
      if deadline == context.deadline
      else f"no answer within {limits.timeout_s:g} s",
      tool_lib.ToolErrorKind.TIMEOUT,
    )
  elif task.cancelled():
    result = _refused(
      "the tool cancelled itself", tool_lib.ToolErrorKind.INFRASTRUCTURE
    )
  else:
    result = task.result()
  return _bounded(result, limits, time.monotonic() - started_s)


async def _cancelled(task: asyncio.Task, name: str) -> None:
  task.cancel()
  await asyncio.wait({task}, timeout=_GRACE_S)
  if not task.done():
    logging.warning("tool %s ignored its cancellation and was left", name)


async def _guarded(
  tool: tool_lib.Tool,
  arguments: Mapping[str, Any],
  context: engine_lib.CallContext,
) -> tool_lib.ToolResult:
  """The tool's answer; every way to fail becomes a typed result."""
  try:
    result = await tool.execute(arguments, context)
  except errors.PromptTooLongError as error:
    # The tool asks an engine, and the model's query is longer than it takes.
    return _refused(str(error), tool_lib.ToolErrorKind.LIMIT)
  except errors.DeadlineExceededError as error:
    return _refused(_described(error), tool_lib.ToolErrorKind.TIMEOUT)
  except errors.InfrastructureError as error:
    return _refused(_described(error), tool_lib.ToolErrorKind.INFRASTRUCTURE)
  # A user's tool may raise anything, and sys.exit in it would end the run.
  # Nothing of ours is hidden by this: the failure is logged, retried, counted,
  # and masks the trajectory.
  except (Exception, SystemExit) as error:  # noqa: BLE001
    logging.exception("tool %s raised", tool.spec.name)
    return _refused(_described(error), tool_lib.ToolErrorKind.INFRASTRUCTURE)
  if not isinstance(result, tool_lib.ToolResult) or not isinstance(
    result.output, str
  ):
    return _refused(
      f"the tool returned {type(result).__name__}, not a ToolResult of text",
      tool_lib.ToolErrorKind.INFRASTRUCTURE,
    )
  return result


def _bounded(
  result: tool_lib.ToolResult, limits: ToolLimits, duration_s: float
) -> tool_lib.ToolResult:
  output, cut = quoting.cut_middle(result.output, limits.max_output_chars)
  return dataclasses.replace(
    result,
    output=quoting.scrub(output),
    truncated_chars=result.truncated_chars + cut,
    duration_s=duration_s,
  )


def _cut_to_tokens(
  result: tool_lib.ToolResult, max_tokens: int, count_tokens: CountTokens
) -> tool_lib.ToolResult:
  output, cut = quoting.cut_to_tokens(result.output, max_tokens, count_tokens)
  if not cut:
    return result
  return dataclasses.replace(
    result, output=output, truncated_chars=result.truncated_chars + cut
  )


def _described(error: BaseException) -> str:
  text = quoting.one_line(str(error), _MAX_ERROR_CHARS)
  return f"{type(error).__name__}: {text}"


def _refused(reason: str, kind: tool_lib.ToolErrorKind) -> tool_lib.ToolResult:
  return tool_lib.ToolResult(output=reason, error=kind)
