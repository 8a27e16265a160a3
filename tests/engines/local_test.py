"""LocalEngine: ids that were sampled, text made of them, typed failures."""

import asyncio

import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import local
from agentflow_jax.sampler import request as request_lib
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.testing import byte_tokenizer, tiny_model

_TOKENIZER = byte_tokenizer.ByteTokenizer()
_MESSAGES = [messages_lib.Message("user", "Question: 2+2?")]


@pytest.fixture(scope="module")
def engine():
  arch = tiny_model.tiny_architecture()
  sampler = sampler_lib.Sampler(
    arch,
    tiny_model.tiny_params(arch),
    slots=4,
    max_prompt_tokens=64,
    max_completion_tokens=24,
    decode_steps=4,
    prefill_chunk_tokens=8,
    eos_ids=_TOKENIZER.eos_ids,
    decode_text=_TOKENIZER.decode,
    policy_version=5,
  )
  yield local.LocalEngine(sampler, _TOKENIZER, name="policy")
  asyncio.run(sampler.close())


def _context(**place):
  return engine_lib.CallContext(
    **{"role": messages_lib.ModuleRole.PLANNER, "task_id": "q", **place}
  )


def _sampling(**values):
  return engine_lib.SamplingParams(**{"max_tokens": 16, **values})


def _generate(engine, *contexts, messages=_MESSAGES, sampling=None):
  async def run():
    return await asyncio.gather(
      *(
        engine.generate(messages, sampling or _sampling(), context)
        for context in contexts
      )
    )

  return asyncio.run(run())


def test_the_completion_carries_what_was_sampled(engine):
  (completion,) = _generate(engine, _context())
  (direct,) = asyncio.run(
    _gather(
      engine.sampler.sample(
        request_lib.SampleRequest(
          prompt_ids=_TOKENIZER.render_chat(_MESSAGES),
          sampling=_sampling(),
          key_words=_context().key_words(),
        )
      )
    )
  )
  assert completion.token_ids == direct.token_ids
  assert completion.logprobs == direct.logprobs
  assert completion.prompt_token_ids == tuple(_TOKENIZER.render_chat(_MESSAGES))
  assert completion.policy_version == 5
  assert completion.text == _TOKENIZER.decode(direct.token_ids)


async def _gather(*awaitables):
  return await asyncio.gather(*awaitables)


def test_the_place_in_the_run_decides_the_tokens(engine):
  places = [
    {},
    {},
    {"member": 1},
    {"turn": 1},
    {"step": 1},
    {"seed": 1},
    {"task_id": "r"},
    {"stream": "evaluation"},
    {"call": 1},
    {"role": messages_lib.ModuleRole.VERIFIER},
  ]
  completions = _generate(engine, *(_context(**place) for place in places))
  assert completions[0] == completions[1]
  assert len({c.token_ids for c in completions}) == len(places) - 1


def test_eos_is_in_the_ids_and_not_in_the_text(engine):
  completions = _generate(
    engine,
    *(_context(member=member) for member in range(80)),
    sampling=_sampling(temperature=2.0, max_tokens=24),
  )
  ended = [
    c for c in completions if c.finish_reason == engine_lib.FinishReason.STOP
  ]
  assert len(ended) >= 3
  for completion in ended:
    assert completion.token_ids[-1] == byte_tokenizer.IM_END_ID
    assert completion.text == _TOKENIZER.decode(completion.token_ids[:-1])


def test_a_stop_string_is_in_the_ids_and_not_in_the_text(engine):
  (free,) = _generate(engine, _context())
  stop = free.text[3:5]
  (cut,) = _generate(
    engine, _context(), sampling=_sampling(stop=("never\0", stop))
  )
  assert cut.text == free.text[: free.text.index(stop)]
  assert stop in _TOKENIZER.decode(cut.token_ids)
  assert cut.token_ids == free.token_ids[: len(cut.token_ids)]
  assert cut.finish_reason == engine_lib.FinishReason.STOP


def test_a_passed_deadline_is_an_infrastructure_error(engine):
  with pytest.raises(errors.DeadlineExceededError, match="'policy'"):
    _generate(engine, _context(deadline=deadline_lib.Deadline(0.0)))
  assert isinstance(errors.DeadlineExceededError(), errors.InfrastructureError)


def test_a_prompt_that_is_too_long_is_the_policys_doing(engine):
  long = [messages_lib.Message("user", "x" * 100)]
  with pytest.raises(errors.PromptTooLongError):
    _generate(engine, _context(), messages=long)


def test_members_share_the_prefill_and_turns_extend_it(engine):
  engine.sampler.update_params(engine.sampler.params, 5)
  engine.sampler.metrics(reset=True)
  _generate(engine, *(_context(member=member) for member in range(4)))
  first = engine.sampler.metrics(reset=True)
  assert first["prefill_computed_per_unique"] == 1.0
  assert first["copied_tokens"] == 3 * first["computed_tokens"]
  longer = [messages_lib.Message("user", "Question: 2+2? Turn 1: hm")]
  _generate(
    engine,
    *(_context(member=member, turn=1) for member in range(4)),
    messages=longer,
  )
  second = engine.sampler.metrics()
  assert second["kept_tokens"] > 0
  assert second["requests"] == 4
