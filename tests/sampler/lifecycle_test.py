"""Deadlines, cancellation, new parameters, closing, failing, compiling."""

import asyncio
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampler_examples as examples

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.testing import tiny_model

FinishReason = engine_lib.FinishReason
request = examples.request


class _Gate:
  """Lets the device program run one dispatch at a time."""

  def __init__(self, monkeypatch, sampler):
    programs = sampler._worker._batcher._programs
    decode = programs.decode
    self._turns = threading.Semaphore(0)
    self._reached = threading.Semaphore(0)
    self.dispatches = 0

    def gated(*arguments):
      self._reached.release()
      assert self._turns.acquire(timeout=60)
      self.dispatches += 1
      return decode(*arguments)

    monkeypatch.setattr(programs, "decode", gated)

  async def reached(self):
    """Waits until a decode dispatch is about to start."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: self._reached.acquire(timeout=60))

  def open(self, dispatches: int = 1):
    self._turns.release(dispatches)


def test_a_passed_deadline_ends_the_request_and_frees_its_slot(
  sampler, monkeypatch
):
  gate = _Gate(monkeypatch, sampler)

  async def run():
    late = deadline_lib.Deadline.after(3600)
    row = asyncio.create_task(
      sampler.sample(
        request(range(9), max_tokens=32, deadline=late, key=(3, 3))
      )
    )
    await gate.reached()
    # The clock jumps past the deadline while a dispatch is under way.
    monkeypatch.setattr(time, "monotonic", lambda: late.at_s + 1)
    gate.open(100)
    output = await row
    monkeypatch.undo()
    return output

  output = asyncio.run(run())
  assert output.finish_reason == FinishReason.DEADLINE
  assert len(output.token_ids) == len(output.logprobs) == 4  # one dispatch
  assert sampler.metrics()["deadline"] == 1
  assert gate.dispatches == 1
  (full,) = examples.sample_all(
    sampler, [request(range(9), max_tokens=32, key=(3, 3))]
  )
  assert full.token_ids[:4] == output.token_ids


def test_a_deadline_also_holds_while_waiting_for_a_slot(sampler, monkeypatch):
  gate = _Gate(monkeypatch, sampler)

  async def run():
    busy = [
      asyncio.create_task(sampler.sample(request(range(5), key=(n, 0))))
      for n in range(8)
    ]
    await gate.reached()
    waiting = asyncio.create_task(
      sampler.sample(request(range(5), deadline=deadline_lib.Deadline(0.0)))
    )
    await asyncio.sleep(0)
    gate.open(100)
    return await waiting, await asyncio.gather(*busy)

  late, outputs = asyncio.run(run())
  assert (late.token_ids, late.finish_reason) == ((), FinishReason.DEADLINE)
  assert all(o.finish_reason != FinishReason.DEADLINE for o in outputs)


def test_cancelling_frees_the_slot_within_one_dispatch(sampler, monkeypatch):
  gate = _Gate(monkeypatch, sampler)

  async def run():
    tasks = [
      asyncio.create_task(
        sampler.sample(request(range(9), max_tokens=32, key=(n, 0)))
      )
      for n in range(8)
    ]
    await gate.reached()
    queued = asyncio.create_task(
      sampler.sample(request(range(9), max_tokens=1, key=(0, 0)))
    )
    await asyncio.sleep(0)
    for task in tasks:
      task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results)
    gate.open(100)
    return await queued

  assert len(asyncio.run(run()).token_ids) == 1
  # The dispatch that was under way, then the queued request's.
  assert gate.dispatches == 2
  metrics = sampler.metrics()
  assert metrics["cancelled"] == 8
  sampler.update_params(sampler.params, 0)  # idle again


def test_requests_of_one_loop_turn_are_decoded_together(sampler):
  requests = [request(range(9), max_tokens=4, key=(n, 0)) for n in range(8)]
  examples.sample_all(sampler, requests)
  metrics = sampler.metrics()
  assert metrics["decode_dispatches"] == 1
  assert metrics["extend_dispatches"] == 1


def test_the_event_loop_runs_while_the_device_computes(sampler, monkeypatch):
  gate = _Gate(monkeypatch, sampler)

  async def run():
    task = asyncio.create_task(sampler.sample(request(range(9), max_tokens=4)))
    await gate.reached()
    turns = 0
    for _ in range(100):  # the dispatch can not end during these
      await asyncio.sleep(0)
      turns += 1
    assert not task.done()
    gate.open()
    return turns, await task

  turns, output = asyncio.run(run())
  assert turns == 100 and len(output.token_ids) == 4


@pytest.mark.slow
def test_new_parameters_never_meet_old_keys(sampler, new_sampler, arch):
  """Without the reset, the kept prefix would answer for the old policy."""
  other = tiny_model.tiny_params(arch, seed=1)
  old = sampler.params
  ask = [request(range(1, 60), temperature=0.0, session="s")]
  (before,) = examples.sample_all(sampler, ask)
  sampler.update_params(other, 7)
  (after,) = examples.sample_all(sampler, ask)
  sampler.update_params(old, 0)
  (restored,) = examples.sample_all(sampler, ask)
  fresh_sampler = new_sampler(params=other, policy_version=7)
  (fresh,) = examples.sample_all(fresh_sampler, ask)
  asyncio.run(fresh_sampler.close())
  assert after == fresh
  assert (before.policy_version, after.policy_version) == (0, 7)
  assert after.token_ids != before.token_ids
  assert restored == before


def test_parameters_that_overflowed_leave_nothing_behind(sampler):
  good = sampler.params
  ask = [request(range(1, 60), key=(n, 0), max_tokens=32) for n in range(8)]
  before = examples.sample_all(sampler, ask)
  sampler.update_params(jax.tree.map(lambda x: x * np.float32(np.nan), good), 1)
  broken = examples.sample_all(sampler, ask)
  assert all(np.isnan(output.logprobs).all() for output in broken)
  sampler.update_params(good, 0)
  assert examples.sample_all(sampler, ask) == before


def test_parameters_that_fit_are_used_in_place(sampler):
  params = sampler.params
  sampler.update_params(jax.tree.map(jnp.asarray, params), 1)
  same = jax.tree.map(
    lambda a, b: a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer(),
    params,
    sampler.params,
  )
  assert all(jax.tree.leaves(same))
  # And the caller's arrays survive being sampled from.
  examples.sample_all(sampler, [request(range(20))])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
  sampler.update_params(params, 0)


def test_parameters_change_only_between_requests(sampler, monkeypatch):
  gate = _Gate(monkeypatch, sampler)

  async def run():
    task = asyncio.create_task(sampler.sample(request(range(9))))
    await gate.reached()
    with pytest.raises(RuntimeError, match="1 requests"):
      sampler.update_params(sampler.params, 1)
    gate.open(100)
    return await task

  assert asyncio.run(run()).policy_version == 0
  assert sampler.policy_version == 0


def test_parameters_of_another_shape_are_refused(sampler):
  params = dict(sampler.params)
  params["embedding_VD"] = jnp.zeros((8, 32))
  with pytest.raises(ValueError, match="embedding_VD"):
    sampler.update_params(params, 1)
  with pytest.raises(ValueError, match="tree structure"):
    sampler.update_params({}, 1)
  examples.sample_all(sampler, [request(range(5))])


def test_nothing_compiles_after_warm_up(sampler):
  """Counts every compile of the process, whoever asks for it."""
  sampler.warm_up()
  compiled = []

  def listener(event: str, duration_secs: float, **_: str | int):
    if "backend_compile" in event:
      compiled.append((event, duration_secs))

  jax.monitoring.register_event_duration_secs_listener(listener)
  jax.jit(lambda x: x + 41)(jnp.ones(3))  # the listener does listen
  heard = len(compiled)
  for tokens in (1, 2, 8, 33, 64):
    examples.sample_all(
      sampler,
      [
        request(range(tokens), key=(n, n), max_tokens=n + 1, session=n, **knobs)
        for n, knobs in enumerate(
          ({}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}) * 5
        )
      ],
    )
    sampler.update_params(sampler.params, tokens)
  sampler.update_params(sampler.params, 0)
  assert heard >= 1
  assert len(compiled) == heard
  assert sampler.metrics()["compiles"] == 3


def test_closing_ends_the_thread_and_fails_what_is_open(new_sampler):
  before = set(threading.enumerate())
  sampler = new_sampler()
  (thread,) = set(threading.enumerate()) - before

  async def run():
    task = asyncio.create_task(sampler.sample(request(range(9))))
    await asyncio.sleep(0)
    await sampler.close()
    with pytest.raises(errors.EngineError, match="closed"):
      await task
    with pytest.raises(errors.EngineError, match="closed"):
      await sampler.sample(request(range(9)))
    await sampler.close()  # again is fine

  asyncio.run(run())
  assert not thread.is_alive()
  assert set(threading.enumerate()) == before


@pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
def test_a_failed_dispatch_fails_every_request_and_all_later_ones(
  new_sampler, monkeypatch
):
  sampler = new_sampler()
  programs = sampler._worker._batcher._programs

  def fail(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

  monkeypatch.setattr(programs, "compile", lambda *_: None)
  monkeypatch.setattr(programs, "new_cache", lambda: None)
  monkeypatch.setattr(programs, "extend", fail)

  async def run():
    results = await asyncio.gather(
      *(sampler.sample(request(range(9), key=(n, 0))) for n in range(20)),
      return_exceptions=True,
    )
    with pytest.raises(errors.EngineError, match="RESOURCE_EXHAUSTED"):
      await sampler.sample(request(range(9)))
    with pytest.raises(errors.EngineError):
      sampler.update_params(sampler.params, 1)
    await sampler.close()
    return results

  results = asyncio.run(run())
  assert len(results) == 20
  assert all(isinstance(r, errors.EngineError) for r in results)


def test_an_answer_for_a_closed_loop_is_dropped(sampler, monkeypatch):
  """The worker outlives the loop that asked."""
  gate = _Gate(monkeypatch, sampler)
  loop = asyncio.new_event_loop()
  task = loop.create_task(sampler.sample(request(range(9), max_tokens=4)))
  loop.run_until_complete(gate.reached())
  loop.run_until_complete(loop.shutdown_default_executor())
  task.cancel()
  loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
  loop.close()
  gate.open(100)
  assert len(examples.sample_all(sampler, [request(range(9))])) == 1


def test_metrics_of_a_hand_made_schedule(sampler):
  """Two members share a 16-token prompt, then one extends it."""
  ids = examples.prompt(0, 16)
  first, second = examples.sample_all(
    sampler,
    [
      request(ids, key=(0, 0), session=0, max_tokens=8),
      request(ids, key=(1, 0), session=1, max_tokens=4),
    ],
  )
  metrics = sampler.metrics()
  assert metrics["requests"] == 2
  assert metrics["prompt_tokens"] == 32
  assert metrics["computed_tokens"] == metrics["unique_tokens"] == 16
  assert metrics["copied_tokens"] == 16
  assert metrics["prefix_hit_rate"] == 0.5
  assert metrics["prefill_computed_per_unique"] == 1.0
  assert metrics["prefill_padding"] == 0.0
  drawn = len(first.token_ids) + len(second.token_ids)
  assert metrics["completion_tokens"] == drawn
  assert metrics["row_steps"] == 4 * len(first.token_ids)
  assert metrics["occupancy"] == drawn / metrics["row_steps"]
  assert metrics["decode_dispatches"] == 2
  assert metrics["extend_dispatches"] == 1
  assert metrics["queue_age_max_s"] >= metrics["queue_age_p99_s"]
  assert metrics["queue_age_p99_s"] >= metrics["queue_age_p50_s"] > 0
  assert metrics["decode_tokens_per_s"] > 0
  sampler.metrics(reset=True)
  grown = [*ids, *first.token_ids, *examples.prompt(1, 10)]
  examples.sample_all(sampler, [request(grown, session=0, max_tokens=1)])
  metrics = sampler.metrics()
  assert metrics["kept_tokens"] == 16
  assert metrics["computed_tokens"] == len(grown) - 16
  assert metrics["queue_age_max_s"] < 60
