"""One question to an engine, under the episode's deadline.

Every module asks through here, so no call starts after the deadline, none is
awaited past it, and each is recorded with the prompt it saw.
"""

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import trajectory as trajectory_lib


async def ask(
  engine: engine_lib.Engine,
  role: messages_lib.ModuleRole,
  messages: tuple[messages_lib.Message, ...],
  sampling: engine_lib.SamplingParams,
  context: engine_lib.CallContext,
) -> trajectory_lib.ModuleCall:
  """Asks `engine` as `role` and keeps the question with the answer.

  Raises:
    EngineError: the engine failed.
    DeadlineExceededError: `context.deadline` passed.
    PromptTooLongError: the prompt does not fit the engine.
  """
  # An engine that answers without awaiting would never see the deadline.
  if context.deadline.passed:
    raise errors.DeadlineExceededError(
      f"the {role} was not asked: the deadline had passed"
    )
  if role != context.role:
    context = context.at(role=role)
  completion = await deadline_lib.within(
    engine.generate(messages, sampling, context),
    context.deadline,
    f"the {role}'s answer",
  )
  return trajectory_lib.ModuleCall(
    role=role, messages=messages, completion=completion
  )
