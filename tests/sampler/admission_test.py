"""Who waits where, how long a dispatch is, and two parameter sets at once."""

import asyncio

import jax
import pytest
import sampler_examples as examples

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.testing import tiny_model

FinishReason = engine_lib.FinishReason
request = examples.request


def _pointers(params):
  return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)]


@pytest.fixture
def narrow(shared_sampler, sampler, monkeypatch):
  """The shared sampler with room for ten requests: eight slots, two waiting."""
  monkeypatch.setattr(sampler._room, "_size", 10)
  return sampler


def test_no_more_requests_are_open_than_there_is_room_for(narrow):
  seen = []

  async def ask(number):
    await narrow.sample(request(range(9), key=(number, 0), max_tokens=8))
    seen.append(len(narrow._open))

  async def run():
    await asyncio.gather(*map(ask, range(40)))

  asyncio.run(run())
  assert len(seen) == 40
  assert max(seen) <= 10
  asyncio.run(run())  # another loop gets room of its own
  assert narrow.metrics()["requests"] == 80


def test_callers_in_front_of_the_queue_are_served_in_order(narrow):
  order = []

  async def ask(number):
    await narrow.sample(request(range(9), key=(1, 1), max_tokens=4))
    order.append(number)

  async def run():
    await asyncio.gather(*map(ask, range(30)))

  asyncio.run(run())
  # Requests of equal length end in the order of their admission.
  assert order == [*range(30)]


def test_a_deadline_and_a_cancellation_hold_in_front_of_the_queue(narrow):
  async def run():
    first = [
      asyncio.create_task(narrow.sample(request(range(9), key=(n, 0))))
      for n in range(10)
    ]
    await asyncio.sleep(0)
    late = asyncio.create_task(
      narrow.sample(request(range(9), deadline=deadline_lib.Deadline(0.0)))
    )
    dropped = asyncio.create_task(narrow.sample(request(range(9))))
    await asyncio.sleep(0)
    dropped.cancel()
    await asyncio.gather(*first)
    return await late, (await asyncio.gather(dropped, return_exceptions=True))[
      0
    ]

  late, dropped = asyncio.run(run())
  assert (late.token_ids, late.finish_reason) == ((), FinishReason.DEADLINE)
  assert isinstance(dropped, asyncio.CancelledError)
  assert narrow.metrics()["requests"] == 10  # neither reached the device
  narrow.update_params(narrow.params, 0)  # nothing is left open


@pytest.mark.parametrize(
  ("stop", "dispatches"),
  [
    # Windows of 4 steps: 1, 2, 4 of them, and the one that is left.
    ((), 4),
    # Only the host can see a stop string, so it looks after every window.
    (("\0never",), 8),
  ],
)
def test_dispatches_grow_while_nothing_arrives(sampler, stop, dispatches):
  for key in range(20):
    sampler.metrics(reset=True)
    (output,) = examples.sample_all(
      sampler, [request(range(9), key=(key, 3), max_tokens=32, stop=stop)]
    )
    if output.finish_reason == FinishReason.LENGTH:
      assert sampler.metrics()["decode_dispatches"] == dispatches
      return
  pytest.fail("no completion of 32 tokens")


@pytest.mark.slow
def test_policy_and_base_are_sampled_side_by_side_without_a_copy(
  new_sampler, arch, params
):
  """The base is the start model's arrays; only the policy ever changes."""
  before = _pointers(params)
  base, policy = new_sampler(), new_sampler()
  assert _pointers(base.params) == _pointers(policy.params) == before
  asked = [
    request(examples.prompt(n, 20 + n), key=(n, 1), session=n)
    for n in range(24)
  ]

  async def both():
    answers = await asyncio.gather(
      *(s.sample(r) for r in asked for s in (base, policy))
    )
    return answers[::2], answers[1::2]

  of_base, of_policy = asyncio.run(both())
  assert [o.token_ids for o in of_base] == [o.token_ids for o in of_policy]
  policy.update_params(tiny_model.tiny_params(arch, seed=1), 1)
  still_base, changed = asyncio.run(both())
  assert still_base == of_base
  assert [o.token_ids for o in changed] != [o.token_ids for o in of_policy]
  assert {o.policy_version for o in changed} == {1}
  assert _pointers(base.params) == before
  assert base.metrics()["compiles"] == policy.metrics()["compiles"] == 3
  for sampler in (base, policy):
    asyncio.run(sampler.close())
