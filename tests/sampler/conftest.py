"""Samplers compile for seconds, so tests share one per set of sizes."""

import pytest

from agentflow_jax.sampler import layout
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.testing import byte_tokenizer, tiny_model

_SIZES = {
  "slots": 8,
  "max_prompt_tokens": 64,
  "max_completion_tokens": 32,
  "decode_steps": 4,
  "prefill_chunk_tokens": 8,
}


@pytest.fixture(scope="session")
def arch():
  return tiny_model.tiny_architecture()


@pytest.fixture(scope="session")
def params(arch):
  return tiny_model.tiny_params(arch)


@pytest.fixture(scope="session")
def new_sampler(arch, params):
  """Makes a sampler of its own; `params` and sizes can be overridden."""

  def make(**overrides):
    tokenizer = byte_tokenizer.ByteTokenizer()
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(layout, "_CPU_GROUP_ROWS", 4)  # two groups
      patch.setattr(layout, "_PAGE_TOKENS", 16)  # six pages of two blocks
      return sampler_lib.Sampler(
        overrides.pop("arch", arch),
        overrides.pop("params", params),
        **{
          **_SIZES,
          "eos_ids": tokenizer.eos_ids,
          "decode_text": tokenizer.decode,
          **overrides,
        },
      )

  return make


@pytest.fixture(scope="session")
def shared_sampler(new_sampler):
  """Compiled once; a test that changes its parameters puts them back."""
  sampler = new_sampler()
  sampler.warm_up()  # tries whether it may share: dispatches nobody asked for
  return sampler


@pytest.fixture
def sampler(shared_sampler):
  """The shared sampler with nothing cached and fresh metrics."""
  shared_sampler.update_params(shared_sampler.params, 0)
  shared_sampler.metrics(reset=True)
  return shared_sampler
