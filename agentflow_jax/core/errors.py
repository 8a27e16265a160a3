"""Typed failures: which ones mask a trajectory, which ones count against it.

`InfrastructureError` and its children mean "nobody's policy is to blame": the
boundary that owns the retry catches them, and when retries are spent the
episode ends with `StopReason.INFRA_ERROR` and is masked out of its group.
Everything a model did wrong is a value (`ParseFailure`, `ToolResult.error`),
never an exception.
"""


class AgentFlowError(Exception):
  """Base of every error this package raises on purpose."""


class UserError(AgentFlowError):
  """Bad input from the user; launch prints it as one line and exits 2.

  The message says what is wrong, where, and what to do.
  """


class ConfigError(UserError):
  """A config value is unknown, of the wrong type, or conflicts with another."""


class CheckpointError(UserError):
  """A checkpoint or exported directory is missing, torn or does not fit."""


class RunDirBusyError(UserError):
  """A live process already trains in this run directory."""


class InfrastructureError(AgentFlowError):
  """A host, process or network failed; never a model's fault."""


class EngineError(InfrastructureError):
  """An engine could not answer (dead host, bad response, shut down).

  `retry_after_s` is how long the host asks to be left alone; 0 = not at all.
  """

  def __init__(self, message: str, *, retry_after_s: float = 0.0):
    super().__init__(message)
    self.retry_after_s = retry_after_s


class RateLimitedError(EngineError):
  """The host answers, but not so often."""


class RequestRefusedError(EngineError):
  """The host will not answer this request however often it is asked."""


class CircuitOpenError(EngineError):
  """The host failed so often that it is left alone for a while."""


class ToolHostError(InfrastructureError):
  """A tool's own machinery failed (sandbox gone, index unreadable, ...)."""


class RewardError(InfrastructureError):
  """A reward could not be computed (judge down, scorer crashed)."""


class DeadlineExceededError(InfrastructureError):
  """An awaited call did not finish before its deadline."""


class PromptTooLongError(AgentFlowError):
  """A prompt exceeds the sampler's limit; ends the episode as MAX_TOKENS.

  Raised before any compute. Not an infrastructure failure: the policy filled
  its own context.
  """

  def __init__(self, prompt_tokens: int, limit_tokens: int):
    super().__init__(
      f"prompt has {prompt_tokens} tokens, the limit is {limit_tokens}"
    )
    self.prompt_tokens = prompt_tokens
    self.limit_tokens = limit_tokens
