"""LocalEngine: messages in, completion out, sampled by our own sampler.

Flow: render the chat to ids (a begun answer keeps its own) -> sample -> text
without eos and stop string. The ids that were sampled travel with the
completion and are never made from text again (design, promise 1). The role,
task and member of the call name the sampler's session and seed its key.

Does not retry (engines/retrying.py does) and does not own the sampler: several
roles may share one.
"""

from collections.abc import Sequence

from agentflow_jax.core import continuing, errors, protocols
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.sampler import request as request_lib
from agentflow_jax.sampler import sampler as sampler_lib

FinishReason = engine_lib.FinishReason


class LocalEngine:
  """An Engine over a Sampler.

  Example:
    engine = LocalEngine(sampler, tokenizer, name="policy")
    completion = await engine.generate(
      [Message("user", "Question: ...")], SamplingParams(max_tokens=64), context
    )
  """

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    tokenizer: protocols.Tokenizer,
    name: str,
  ):
    self.sampler = sampler
    self.name = name
    self._tokenizer = tokenizer

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """See `core.engine.Engine`.

    Raises:
      EngineError: the sampler is closed or failed.
      DeadlineExceededError: `context.deadline` passed first.
      PromptTooLongError: before any compute.
    """
    prompt_ids = continuing.prompt_ids(self._tokenizer, messages)
    output = await self.sampler.sample(
      request_lib.SampleRequest(
        prompt_ids=prompt_ids,
        sampling=sampling,
        key_words=context.key_words(),
        session=context.session,
        deadline=context.deadline,
      )
    )
    if output.finish_reason == FinishReason.DEADLINE:
      raise errors.DeadlineExceededError(
        f"engine {self.name!r} drew {len(output.token_ids)} of up to "
        f"{sampling.max_tokens} tokens before its deadline"
      )
    return engine_lib.Completion(
      text=self._text(output.token_ids, sampling.stop),
      finish_reason=output.finish_reason,
      token_ids=output.token_ids,
      logprobs=output.logprobs,
      prompt_token_ids=tuple(prompt_ids),
      policy_version=output.policy_version,
    )

  def _text(self, token_ids: Sequence[int], stop: tuple[str, ...]) -> str:
    """The text up to the first stop string; `decode` leaves out eos."""
    text = self._tokenizer.decode(token_ids)
    ends = [end for end in map(text.find, stop) if end >= 0]
    return text[: min(ends)] if ends else text
