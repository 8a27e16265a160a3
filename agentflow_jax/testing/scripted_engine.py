"""FakePolicyEngine: a scripted policy with token ids, for training tests.

Where `engines/scripted.py` answers in text only, this one answers as the
local sampler does: prompt ids, sampled ids with the eos, and one logprob per
id, all consistent with a tokenizer.
"""

from collections.abc import Callable, Sequence

from agentflow_jax.core import continuing, errors, protocols
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib

# A value float32 holds exactly.
LOGPROB = -0.5


class FakePolicyEngine:
  """Implements core `Engine`; `prompts` and `contexts` keep what it was asked.

  Args:
    tokenizer: turns messages and answers into ids.
    script: last user message (with the answer begun behind it) and context to
      the answer's text, which stop strings end as they do a sampler's.
    max_prompt_tokens: above it, PromptTooLongError; 0 = no limit.
    policy_version: what completions carry; may be set between calls.
  """

  def __init__(
    self,
    tokenizer: protocols.Tokenizer,
    script: Callable[[str, engine_lib.CallContext], str],
    *,
    max_prompt_tokens: int = 0,
    policy_version: int = 0,
  ):
    self._tokenizer = tokenizer
    self._script = script
    self._max_prompt_tokens = max_prompt_tokens
    self.policy_version = policy_version
    self.prompts: list[str] = []
    self.contexts: list[engine_lib.CallContext] = []

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """The script's answer, cut to `sampling.max_tokens` ids like a sampler's.

    Raises:
      PromptTooLongError: the prompt has more than `max_prompt_tokens` ids.
    """
    prompt_ids = tuple(continuing.prompt_ids(self._tokenizer, messages))
    if 0 < self._max_prompt_tokens < len(prompt_ids):
      raise errors.PromptTooLongError(len(prompt_ids), self._max_prompt_tokens)
    prompt = continuing.last_text(messages) or ""
    self.prompts.append(prompt)
    self.contexts.append(context)
    text, stop = _stopped(self._script(prompt, context), sampling.stop)
    ids = tuple(self._tokenizer.encode(text + stop))
    if not stop:
      ids = (*ids, self._tokenizer.eos_ids[0])
    finish_reason = engine_lib.FinishReason.STOP
    if len(ids) > sampling.max_tokens:
      ids = ids[: sampling.max_tokens]
      finish_reason = engine_lib.FinishReason.LENGTH
    return engine_lib.Completion(
      text=_stopped(self._tokenizer.decode(ids), sampling.stop)[0],
      finish_reason=finish_reason,
      token_ids=ids,
      logprobs=(LOGPROB,) * len(ids),
      prompt_token_ids=prompt_ids,
      policy_version=self.policy_version,
    )


def _stopped(text: str, stop: Sequence[str]) -> tuple[str, str]:
  """The text before the first stop string, and that string or ""."""
  found = [(at, end) for end in stop if (at := text.find(end)) >= 0]
  if not found:
    return text, ""
  at, end = min(found)
  return text[:at], end
