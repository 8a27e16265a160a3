"""Bits depend on the request alone: not on load, order, slot or cache hits.

Rounds are driven by hand, so a schedule is a function of its seed. 200 of them
in all; the first 20 belong to the quick suite.
"""

import asyncio

import numpy as np
import pytest
import sampler_examples as examples

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.sampler import batcher as batcher_lib
from agentflow_jax.sampler import rows as rows_lib

_QUICK = range(20)
_LONG = range(20, 200)
_REQUESTS = 64


def _requests():
  """Prompts of four tasks that share a system prefix, grow, and repeat."""
  rng = np.random.default_rng(11)
  system = examples.prompt(100, 17)
  made = []
  for index in range(_REQUESTS):
    task = index % 4
    ids = [*system, *examples.prompt(200 + task, 9)]
    ids += examples.prompt(300 + index % 9, int(rng.integers(0, 38)))
    if index % 13 == 0:
      ids = ids[: int(rng.integers(1, 9))]
    truncation = (
      {},
      {"top_k": 20},
      {"top_p": 0.9},
      {"min_p": 0.05, "top_p": 0.95},
    )[index % 4 if index % 3 == 0 else 0]
    made.append(
      examples.request(
        ids,
        key=(index, 5),
        session=index % 11,
        temperature=(0.0, 0.7, 1.0, 1.3)[index % 4],
        max_tokens=int(rng.integers(1, 33)),
        **truncation,
      )
    )
  return made


def _ticket(request, loop):
  return rows_lib.Ticket(
    request=request,
    prompt=np.asarray(request.prompt_ids, np.int32),
    max_tokens=request.sampling.max_tokens,
    future=loop.create_future(),
    loop=loop,
    arrived_s=0.0,
  )


def _run(batcher: batcher_lib.Batcher, requests, seed: int, disturb: float):
  """Submits in random order in random bursts, beside disturbing extras.

  An extra repeats some request under way and is cancelled after a while.
  """
  rng = np.random.default_rng(seed)
  loop = asyncio.new_event_loop()
  tickets = [_ticket(request, loop) for request in requests]
  waiting = rng.permutation(len(tickets)).tolist()
  burst = int(rng.choice([1, 3, 8, 64]))
  extras, ended = [], {}
  while waiting or batcher.busy:
    arrived = [tickets[index] for index in waiting[:burst]]
    del waiting[:burst]
    if rng.random() < disturb and waiting:
      extras.append(_ticket(requests[int(rng.integers(len(requests)))], loop))
      arrived.insert(0, extras[-1])
    for extra in extras:
      extra.cancelled = extra.cancelled or rng.random() < 0.3
    for finished in batcher.round(arrived):
      ended[id(finished.ticket)] = finished.reason
  loop.close()
  return [
    (
      tuple(ticket.tokens),
      np.asarray(ticket.logprobs, np.float32).tobytes(),
      ended[id(ticket)],
    )
    for ticket in tickets
  ]


@pytest.fixture(scope="module")
def batcher(shared_sampler):
  """The shared sampler's machinery, its thread left asleep."""
  with shared_sampler._worker.exclusive() as batcher:
    yield batcher


@pytest.fixture(scope="module")
def reference(batcher, shared_sampler):
  """Every request alone, on an empty cache."""
  results = []
  for request in _requests():
    batcher.update_params(shared_sampler.params)
    results += _run(batcher, [request], seed=0, disturb=0)
  return results


@pytest.mark.parametrize(
  "seed",
  [*_QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in _LONG)],
)
def test_schedules_give_identical_bits(
  batcher, reference, shared_sampler, seed
):
  if seed % 2:  # every other schedule starts with what the last one left
    batcher.update_params(shared_sampler.params)
  assert _run(batcher, _requests(), seed, disturb=0.5) == reference


def test_the_requests_are_worth_comparing(batcher, reference):
  """Sharing, eviction, greedy rows, and more than one way to end occur."""
  batcher.metrics(reset=True)
  assert _run(batcher, _requests(), seed=1, disturb=0) == reference
  metrics = batcher.metrics(reset=True)
  assert metrics["copied_tokens"] > 200
  assert metrics["kept_tokens"] > 20
  assert metrics["moved_rows"] > 0
  assert metrics["shared_context"] > 0.1 or not batcher._shares
  assert metrics["computed_tokens"] > metrics["unique_tokens"]
  reasons = {reason for _, _, reason in reference}
  assert engine_lib.FinishReason.LENGTH in reasons
  assert len({tokens for tokens, _, _ in reference}) > 50
