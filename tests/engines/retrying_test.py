"""RetryingEngine: what is retried, how often, and what stays equal."""

import asyncio
import dataclasses
import random

import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import retrying

ANSWER = engine_lib.Completion(
  text="ok", finish_reason=engine_lib.FinishReason.STOP
)


class _Engine:
  """Raises the given errors one after the other, then answers."""

  def __init__(self, *failures, hang=False):
    self._failures = list(failures)
    self._hang = hang
    self.calls = []

  async def generate(self, messages, sampling, context):
    self.calls.append((messages, sampling, context))
    if self._failures:
      raise self._failures.pop(0)
    if self._hang:
      await asyncio.Event().wait()
    return ANSWER


def _context(**fields):
  return engine_lib.CallContext(
    role=messages_lib.ModuleRole.EXECUTOR, seed=3, turn=2, **fields
  )


def _ask(engine, context=None):
  return asyncio.run(
    asyncio.wait_for(
      engine.generate(
        (messages_lib.Message("user", "q"),),
        engine_lib.SamplingParams(temperature=0.3),
        context or _context(),
      ),
      60,
    )
  )


def _retrying(engine, retries=2, timeout_s=30.0, first_delay_s=0.0):
  return retrying.RetryingEngine(
    engine, retries, timeout_s, first_delay_s=first_delay_s
  )


def test_recovers_and_counts():
  inner = _Engine(errors.EngineError("a"), errors.DeadlineExceededError("b"))
  engine = _retrying(inner)
  assert _ask(engine) is ANSWER
  assert len(inner.calls) == 3
  assert engine.metrics(reset=True) == {"calls": 1, "retries": 2, "failures": 0}
  assert engine.metrics() == {"calls": 0, "retries": 0, "failures": 0}


@pytest.mark.parametrize(
  ("error", "kind"),
  [
    (errors.EngineError("gone"), errors.EngineError),
    (errors.DeadlineExceededError("late"), errors.DeadlineExceededError),
  ],
)
@pytest.mark.parametrize("retries", [0, 3])
def test_gives_up_after_its_retries_with_the_same_type(error, kind, retries):
  inner = _Engine(*[error] * 9)
  engine = _retrying(inner, retries)
  tries = "1 try" if retries == 0 else f"{retries + 1} tries"
  with pytest.raises(kind, match=rf"{error} \(after {tries}\)"):
    _ask(engine)
  assert len(inner.calls) == retries + 1
  assert engine.metrics()["failures"] == 1


@pytest.mark.parametrize(
  "error", [errors.PromptTooLongError(9, 8), KeyError("bug")]
)
def test_other_errors_travel_on_at_once(error):
  inner = _Engine(error)
  with pytest.raises(type(error)):
    _ask(_retrying(inner))
  assert len(inner.calls) == 1


def test_a_try_has_its_own_limit():
  inner = _Engine(hang=True)
  with pytest.raises(errors.DeadlineExceededError, match="after 2 tries"):
    _ask(_retrying(inner, retries=1, timeout_s=0.05))
  assert len(inner.calls) == 2


def test_the_callers_deadline_ends_the_retries():
  inner = _Engine(*[errors.EngineError("x")] * 9)
  context = _context(deadline=deadline_lib.Deadline.after(3))
  with pytest.raises(errors.EngineError, match="after 1 try"):
    _ask(_retrying(inner, retries=8, first_delay_s=60.0), context)
  assert len(inner.calls) == 1


def test_tries_differ_in_nothing_but_the_deadline():
  inner = _Engine(*[errors.EngineError("x")] * 2)
  context = _context()
  _ask(_retrying(inner), context)
  for messages, sampling, seen in inner.calls:
    assert messages == (messages_lib.Message("user", "q"),)
    assert sampling == engine_lib.SamplingParams(temperature=0.3)
    assert dataclasses.replace(seen, deadline=context.deadline) == context
    assert seen.key_words() == context.key_words()
    assert seen.deadline < context.deadline


def test_jitter_leaves_the_global_generator_alone():
  random.seed(5)
  before = random.getstate()
  _ask(_retrying(_Engine(*[errors.EngineError("x")] * 2)))
  assert random.getstate() == before


def test_delays_double_are_jittered_and_bounded(monkeypatch):
  delays = []

  async def sleep(seconds):
    delays.append(seconds)

  monkeypatch.setattr(asyncio, "sleep", sleep)
  _ask(_retrying(_Engine(*[errors.EngineError("x")] * 7), 7, first_delay_s=1.0))
  bounds = [1, 2, 4, 8, 8, 8, 8]
  assert len(delays) == len(bounds)
  for delay, bound in zip(delays, bounds, strict=True):
    assert bound / 2 <= delay <= bound
  assert len(set(delays)) == len(delays)


def test_cancellation_travels_on():
  inner = _Engine(hang=True)

  async def run():
    task = asyncio.create_task(
      _retrying(inner).generate((), engine_lib.SamplingParams(), _context())
    )
    while not inner.calls:
      await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task

  asyncio.run(run())
  assert len(inner.calls) == 1
