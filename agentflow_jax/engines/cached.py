"""CachedEngine: an API is asked the same thing once.

The key is everything an answer depends on: provider, address, model, the
whole request (messages, schema, sampling) and, when the answer is drawn at
random, whose draw it is. Only answers are kept, never failures.
"""

from collections.abc import Sequence

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import answer_store, remote

# Part of every key; another number for another meaning of requests or values.
_VERSION = 1


class CachedEngine:
  """Implements core `Engine` around a RemoteEngine.

  Args:
    engine: whose requests are the keys.
    store: where answers are kept.
    ask: who is asked what is not stored, if not `engine` itself.

  Example: `CachedEngine(engine, AnswerStore("cache/answers.sqlite"))`.
  """

  def __init__(
    self,
    engine: remote.RemoteEngine,
    store: answer_store.AnswerStore,
    ask: engine_lib.Engine | None = None,
  ):
    self._engine = engine
    self._store = store
    self._ask = ask or engine
    self._hits = 0.0

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """Answers that were found in the cache."""
    counts = {"cache_hits": self._hits}
    if reset:
      self._hits = 0.0
    return counts

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """The stored answer, else the engine's, which is then stored."""
    key = self._key(messages, sampling, context)
    found = self._store.get(key)
    if found is not None:
      self._hits += 1
      return engine_lib.Completion(
        text=found["text"],
        finish_reason=engine_lib.FinishReason(found["finish_reason"]),
      )
    completion = await self._ask.generate(messages, sampling, context)
    self._store.put(
      key,
      {
        "text": completion.text,
        "finish_reason": completion.finish_reason.value,
      },
    )
    return completion

  def _key(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> bytes:
    return answer_store.key_of(
      {
        "version": _VERSION,
        "provider": self._engine.model.provider.name,
        "base_url": self._engine.base_url,
        "request": self._engine.request(messages, sampling, context),
        # Greedy answers are anybody's.
        "draw": context.key_words() if sampling.temperature > 0 else None,
      }
    )
