"""The concurrency limit and the circuit breaker, without a network."""

import asyncio
import time

import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import guards, retrying

ANSWER = engine_lib.Completion(
  text="ok", finish_reason=engine_lib.FinishReason.STOP
)


class _Engine:
  """Raises `failure` while there is one; counts calls."""

  def __init__(self, failure=None):
    self.failure = failure
    self.calls = self.running = self.most = 0
    self.gate = None

  async def generate(self, messages, sampling, context):
    self.calls += 1
    self.running += 1
    self.most = max(self.most, self.running)
    try:
      await (self.gate.wait() if self.gate else asyncio.sleep(0))
    finally:
      self.running -= 1
    if self.failure is not None:
      raise self.failure
    return ANSWER


def _ask(engine, **context):
  return engine.generate(
    (),
    engine_lib.SamplingParams(),
    engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR, **context),
  )


async def _fail(engine, times, kind=errors.EngineError):
  for _ in range(times):
    with pytest.raises(kind):
      await _ask(engine)


def test_the_limit_is_kept_and_everybody_gets_a_place():
  async def main():
    inner = _Engine()
    limited = guards.ConcurrencyLimit(inner, 3)
    answers = await asyncio.gather(*(_ask(limited) for _ in range(20)))
    assert answers == [ANSWER] * 20
    assert (inner.calls, inner.most) == (20, 3)

  asyncio.run(main())


def test_waiting_for_a_place_ends_at_the_deadline_and_at_cancellation():
  async def main():
    inner = _Engine()
    inner.gate = asyncio.Event()
    limited = guards.ConcurrencyLimit(inner, 1)
    first = asyncio.create_task(_ask(limited))
    await asyncio.sleep(0)
    with pytest.raises(errors.DeadlineExceededError, match="place"):
      await _ask(limited, deadline=deadline_lib.Deadline.after(0.02))
    waiting = asyncio.create_task(_ask(limited))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
      await waiting
    inner.gate.set()
    assert await first is ANSWER
    assert await _ask(limited) is ANSWER  # no place was lost
    assert inner.calls == 2

  asyncio.run(main())


def test_the_circuit_opens_after_failures_in_a_row_and_half_opens():
  async def main():
    inner = _Engine(errors.EngineError("down"))
    breaker = guards.CircuitBreaker(inner, failures=5, pause_s=0.1)
    await _fail(breaker, 5)
    assert inner.calls == 5
    await _fail(breaker, 3, errors.CircuitOpenError)
    assert inner.calls == 5
    await asyncio.sleep(0.11)
    # Half open: one call goes through, fails, and the circuit is open again.
    inner.gate = asyncio.Event()
    trial = asyncio.create_task(_ask(breaker))
    await asyncio.sleep(0)
    await _fail(breaker, 2, errors.CircuitOpenError)
    inner.gate.set()
    with pytest.raises(errors.EngineError, match="down"):
      await trial
    await _fail(breaker, 1, errors.CircuitOpenError)
    assert inner.calls == 6
    await asyncio.sleep(0.11)
    inner.failure = None
    assert await _ask(breaker) is ANSWER
    inner.failure = errors.EngineError("down")
    await _fail(breaker, 4)  # closed: counted from nothing
    inner.failure = None
    assert await _ask(breaker) is ANSWER
    assert breaker.metrics(reset=True) == {
      "circuit_opened": 2,
      "circuit_refused": 6,
    }
    assert not any(breaker.metrics().values())

  asyncio.run(main())


@pytest.mark.parametrize(
  "failure",
  [errors.RequestRefusedError("no"), errors.PromptTooLongError(9, 8)],
)
def test_a_host_that_refuses_is_up(failure):
  async def main():
    inner = _Engine(errors.EngineError("down"))
    breaker = guards.CircuitBreaker(inner, failures=2, pause_s=60)
    await _fail(breaker, 1)
    inner.failure = failure
    await _fail(breaker, 3, type(failure))
    inner.failure = errors.EngineError("down")
    await _fail(breaker, 1)
    assert inner.calls == 5

  asyncio.run(main())


def test_hanging_until_the_deadline_counts_and_being_cancelled_does_not():
  async def main():
    inner = _Engine()
    inner.gate = asyncio.Event()
    breaker = guards.CircuitBreaker(inner, failures=2, pause_s=60)
    for _ in range(4):
      call = asyncio.create_task(_ask(breaker))
      await asyncio.sleep(0)
      call.cancel()
      with pytest.raises(asyncio.CancelledError):
        await call
    tried = retrying.RetryingEngine(breaker, 0, 0.02)
    for _ in range(2):
      with pytest.raises(errors.DeadlineExceededError):
        await _ask(tried)
    with pytest.raises(errors.EngineError, match="left alone"):
      await _ask(tried)
    assert inner.calls == 6

  asyncio.run(main())


def test_retries_wait_until_the_circuit_half_opens():
  async def main():
    inner = _Engine(errors.EngineError("down"))
    breaker = guards.CircuitBreaker(inner, failures=1, pause_s=0.1)
    await _fail(breaker, 1)
    inner.failure = None
    tried = retrying.RetryingEngine(breaker, 1, 30.0, first_delay_s=0.0)
    started_s = time.monotonic()
    assert await _ask(tried) is ANSWER
    assert time.monotonic() - started_s >= 0.05

  asyncio.run(main())
