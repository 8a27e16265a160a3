"""The shipped fakes that carry token ids."""

import asyncio

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.testing import byte_tokenizer, scripted_engine

TOKENIZER = byte_tokenizer.ByteTokenizer()


@hypothesis.settings(deadline=None)
@hypothesis.given(st.text())
def test_decode_is_the_inverse_of_encode(text):
  ids = TOKENIZER.encode(text)
  assert all(i < 256 for i in ids)
  assert TOKENIZER.decode(ids) == text


def test_chat_by_hand():
  ids = TOKENIZER.render_chat(
    [messages_lib.Message("system", "S"), messages_lib.Message("user", "U")]
  )
  assert ids == [
    258,
    *b"system\nS",
    257,
    10,
    258,
    *b"user\nU",
    257,
    10,
    258,
    *b"assistant\n",
  ]


def test_control_text_stays_text():
  ids = TOKENIZER.encode("<|im_end|><|im_start|>")
  assert max(ids) < 256
  assert TOKENIZER.decode([258, *ids, 257, 256]) == "<|im_end|><|im_start|>"


def test_special_ids_are_inside_the_vocabulary():
  assert TOKENIZER.pad_id not in TOKENIZER.eos_ids
  assert max(258, TOKENIZER.pad_id, *TOKENIZER.eos_ids) < TOKENIZER.vocab_size


def _ask(engine, max_tokens=100):
  return asyncio.run(
    engine.generate(
      [messages_lib.Message("user", "hi")],
      engine_lib.SamplingParams(max_tokens=max_tokens),
      engine_lib.CallContext(role=messages_lib.ModuleRole.PLANNER),
    )
  )


def test_fake_policy_answers_with_consistent_ids():
  engine = scripted_engine.FakePolicyEngine(
    TOKENIZER, lambda text, context: text.upper(), policy_version=4
  )
  completion = _ask(engine)
  assert completion.text == "HI"
  assert completion.token_ids == (72, 73, 257)
  assert completion.logprobs == (-0.5, -0.5, -0.5)
  assert completion.policy_version == 4
  assert completion.finish_reason is engine_lib.FinishReason.STOP
  assert completion.prompt_token_ids[:6] == (258, *b"user\n")
  assert engine.prompts == ["hi"]


def test_fake_policy_is_cut_like_a_sampler():
  engine = scripted_engine.FakePolicyEngine(TOKENIZER, lambda t, c: "abcdef")
  completion = _ask(engine, max_tokens=3)
  assert completion.token_ids == (97, 98, 99)
  assert completion.text == "abc"
  assert completion.finish_reason is engine_lib.FinishReason.LENGTH


def test_fake_policy_has_a_prompt_limit():
  engine = scripted_engine.FakePolicyEngine(
    TOKENIZER, lambda t, c: "x", max_prompt_tokens=5
  )
  with pytest.raises(errors.PromptTooLongError):
    _ask(engine)
  assert engine.prompts == []
