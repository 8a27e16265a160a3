"""An engine with everything around it, from the outside in:

  a place (limit) -> retries -> cache -> circuit breaker -> API

Engines of our own (policy, start model, rules) need the retries only.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Protocol

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import providers
from agentflow_jax.engines import (
  answer_store,
  cached,
  guards,
  remote,
  retrying,
)

_CACHE_FILE = "answers.sqlite"


class _Counting(Protocol):
  def metrics(self, reset: bool = False) -> dict[str, float]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
  """The outermost engine, whoever counts, and what has to be closed."""

  engine: engine_lib.Engine
  counting: Sequence[_Counting]
  closing: contextlib.AsyncExitStack

  def metrics(self, reset: bool = False) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in self.counting:
      found |= part.metrics(reset)
    return found


def local(config: config_lib.EnginesConfig, engine: engine_lib.Engine) -> Stack:
  """One of our own engines; whoever made it closes it."""
  retried = retrying.RetryingEngine(
    engine, config.retries, config.call_timeout_s
  )
  return Stack(
    engine=retried, counting=[retried], closing=contextlib.AsyncExitStack()
  )


def of_api(
  config: config_lib.EnginesConfig,
  model: providers.RemoteModel,
  options: config_lib.EngineOptions,
) -> Stack:
  """A model behind an API.

  Raises:
    UserError: its key, its address or the cache's directory is missing.
  """
  closing = contextlib.AsyncExitStack()
  api = remote.RemoteEngine(
    model,
    base_url=options.base_url,
    structured_outputs=options.structured,
    stream=config.stream,
    input_price=options.input_price,
    output_price=options.output_price,
  )
  closing.push_async_callback(api.aclose)
  breaker = guards.CircuitBreaker(
    api, config.circuit_failures, config.circuit_pause_s
  )
  counting: list[_Counting] = [api, breaker]
  engine: engine_lib.Engine = breaker
  if config.cache_dir:
    store = answer_store.AnswerStore(
      pathlib.Path(config.cache_dir) / _CACHE_FILE
    )
    closing.callback(store.close)
    engine = cached.CachedEngine(api, store, ask=breaker)
    counting.append(engine)
  retried = retrying.RetryingEngine(
    engine, config.retries, config.call_timeout_s
  )
  return Stack(
    engine=guards.ConcurrencyLimit(retried, config.max_concurrent_calls),
    counting=[retried, *counting],
    closing=closing,
  )
