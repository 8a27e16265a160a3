"""What a sampler is asked and what it answers."""

import dataclasses
from collections.abc import Hashable, Sequence

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
  """One completion to draw.

  `key_words` (two uint32) seed it: equal keys, prompts, sampling parameters
  and parameters give equal tokens. Requests of one `session` extend each
  other's prompts, so their slot is kept for them while nobody needs it more.

  Example: `SampleRequest(prompt_ids=[5, 6, 7], sampling=SamplingParams(
  max_tokens=8), key_words=(1, 2), session="q7/3")`.
  """

  prompt_ids: Sequence[int]
  sampling: engine_lib.SamplingParams
  key_words: tuple[int, int]
  session: Hashable = None
  deadline: deadline_lib.Deadline = deadline_lib.NEVER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleOutput:
  """The drawn tokens, eos or the token that completed a stop string included.

  `logprobs` are float32 values in nats under the distribution drawn from.
  With `finish_reason` DEADLINE the tokens are those drawn so far.

  Example: tokens (8, 9, 2) with eos 2, logprobs (-0.3, -1.1, -0.01), STOP.
  """

  token_ids: tuple[int, ...]
  logprobs: tuple[float, ...]
  finish_reason: engine_lib.FinishReason
  policy_version: int
