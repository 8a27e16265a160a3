"""Slots split over devices: the same answers, no copies across shards."""

import asyncio

import jax
import numpy as np
import pytest
import sampler_examples as examples
from jax.sharding import NamedSharding, PartitionSpec

from agentflow_jax.core import errors
from agentflow_jax.models import sharding as sharding_lib
from agentflow_jax.testing import tiny_model

request = examples.request


def _requests():
  """Half the prompts share 24 tokens; more requests than slots."""
  return [
    request(
      [
        *examples.prompt(n % 2 * 50, 24),
        *examples.prompt(n, 3 + n * 5 % 30),
      ],
      key=(n, 1),
      session=n % 7,
      max_tokens=1 + n % 20,
    )
    for n in range(40)
  ]


def _mesh(data, tensor=1):
  return sharding_lib.make_mesh(
    data, 1, tensor, devices=jax.devices()[: data * tensor]
  )


@pytest.fixture(scope="module")
def expected(shared_sampler):
  shared_sampler.update_params(shared_sampler.params, 0)
  return examples.sample_all(shared_sampler, _requests())


@pytest.fixture(scope="module")
def two_shards(new_sampler):
  sampler = new_sampler(slots=16, mesh=_mesh(2))
  yield sampler
  asyncio.run(sampler.close())


@pytest.mark.slow
def test_two_shards_of_eight_slots_equal_one(two_shards, expected):
  """Equal slots per device means equal shapes, hence equal bits."""
  outputs = examples.sample_all(two_shards, _requests())
  again = examples.sample_all(two_shards, _requests()[::-1])
  metrics = two_shards.metrics()
  assert outputs == expected
  assert again[::-1] == expected
  assert metrics["copied_tokens"] > 0
  assert metrics["compiles"] == 3


@pytest.mark.slow
def test_heads_may_be_split_as_well(new_sampler, arch, params, expected):
  """data 2 x tensor 2, parameters on the learner's table of shardings.

  Two samplers at once, as policy and frozen model are: their collectives must
  not wait for each other.
  """
  mesh = _mesh(2, tensor=2)
  shardings = sharding_lib.param_shardings(arch, mesh)
  placed = jax.device_put(params, shardings)
  both = [new_sampler(params=placed, slots=8, mesh=mesh) for _ in range(2)]
  in_use = both[0].params["layers"]["attention"]["q_DNH"]
  assert in_use.sharding.spec == shardings["layers"]["attention"]["q_DNH"].spec

  async def run():
    asked = [s.sample(r) for r in _requests() for s in both]
    answers = await asyncio.gather(*asked)
    for sampler in both:
      await sampler.close()
    return answers

  answers = asyncio.run(run())
  outputs = answers[::2]
  assert answers[1::2] == outputs
  same = sum(
    a.token_ids == b.token_ids for a, b in zip(outputs, expected, strict=True)
  )
  assert same >= 38  # another summation order may flip a rare close draw
  for a, b in zip(outputs, expected, strict=True):
    if a.token_ids == b.token_ids:
      np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)


@pytest.mark.slow
def test_new_parameters_are_moved_to_the_mesh(
  two_shards, params, arch, expected
):
  """They may lie on one device, or be split over "data" by the learner."""
  two_shards.update_params(tiny_model.tiny_params(arch, seed=1), 1)
  changed = examples.sample_all(two_shards, _requests())
  over_data = NamedSharding(_mesh(2), PartitionSpec("data"))
  split = jax.tree.map(
    lambda x: jax.device_put(x, over_data) if x.shape[0] % 2 == 0 else x, params
  )
  two_shards.update_params(split, 0)
  assert examples.sample_all(two_shards, _requests()) == expected
  assert [c.token_ids for c in changed] != [e.token_ids for e in expected]


def test_slots_must_divide_over_the_data_axis(new_sampler):
  with pytest.raises(errors.ConfigError, match="slots=7"):
    new_sampler(slots=7, mesh=_mesh(2))
  no_data = jax.make_mesh((1,), ("tensor",), devices=jax.devices()[:1])
  with pytest.raises(errors.ConfigError, match="missing"):
    new_sampler(mesh=no_data)
