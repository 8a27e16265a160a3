"""Asks a tool's engine one question, the same way for every tool.

One user message: the tool's instructions, then the query as the last line
(`Query: ...`), so that a rule-based engine can read it back. The role is TOOL
whoever called, which gives tools their own sampling keys and session.

Instructions may quote pages and queries are a model's words, so neither can
carry a control token of a chat to whoever answers.
"""

from agentflow_jax.core import control_tokens, errors
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib

QUERY = "Query:"
_CHECK_S = 60.0


async def ask(
  engine: engine_lib.Engine,
  sampling: engine_lib.SamplingParams,
  instructions: str,
  query: str,
  context: engine_lib.CallContext,
) -> str | tool_lib.ToolResult:
  """The engine's text, or the error to hand back if the query is too long.

  Line breaks inside `query` become spaces, because the query is one line.

  Raises:
    EngineError: the engine failed (retryable by the caller).
    DeadlineExceededError: `context.deadline` passed first.
  """
  line = " ".join(query.splitlines())
  text = control_tokens.defuse(f"{instructions}\n{QUERY} {line}")
  message = messages_lib.Message("user", text)
  try:
    completion = await engine.generate(
      (message,),
      sampling,
      context.at(role=messages_lib.ModuleRole.TOOL),
    )
  except errors.PromptTooLongError as error:
    # Not the planner's context but this one query: the episode goes on.
    return tool_lib.ToolResult(
      output=f"the query is too long: {error}",
      error=tool_lib.ToolErrorKind.INVALID_ARGUMENTS,
    )
  return completion.text


async def check_engine(
  engine: engine_lib.Engine, sampling: engine_lib.SamplingParams
) -> None:
  """Asks `engine` one question in the TOOL role; any answer will do.

  Raises:
    EngineError: the engine does not answer.
    DeadlineExceededError: not within a minute.
  """
  deadline = deadline_lib.Deadline.after(_CHECK_S)
  context = engine_lib.CallContext(
    role=messages_lib.ModuleRole.TOOL, stream="check", deadline=deadline
  )
  await deadline_lib.within(
    ask(engine, sampling, "Answer the query.", "Compute 2 + 2", context),
    deadline,
    "the tool engine's check",
  )
