"""What a request gets: parity with the full forward, and when it ends."""

import asyncio

import jax
import numpy as np
import pytest
import sampler_examples as examples

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.sampler import sampling
from agentflow_jax.testing import byte_tokenizer, tiny_model

FinishReason = engine_lib.FinishReason
request = examples.request


@pytest.mark.slow
def test_greedy_is_the_argmax_of_the_full_forward(sampler, arch, params):
  prompts = [examples.prompt(seed, 1 + seed * 7 % 64) for seed in range(200)]
  outputs = examples.sample_all(
    sampler,
    [request(p, temperature=0.0, session=i) for i, p in enumerate(prompts)],
  )
  tokens = 0
  for ids, output in zip(prompts, outputs, strict=True):
    logits_TV = examples.logits_of(arch, params, ids, output.token_ids)
    np.testing.assert_array_equal(logits_TV.argmax(axis=1), output.token_ids)
    np.testing.assert_allclose(
      output.logprobs,
      examples.logprobs_of(arch, params, ids, output.token_ids),
      atol=1e-5,
    )
    tokens += len(output.token_ids)
  assert tokens > 1500


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_logprobs_equal_the_full_forwards(sampler, arch, params, temperature):
  prompts = [
    examples.prompt(seed, n) for seed, n in enumerate((1, 8, 9, 30, 64))
  ]
  outputs = examples.sample_all(
    sampler,
    [request(p, temperature=temperature, max_tokens=32) for p in prompts],
  )
  for ids, output in zip(prompts, outputs, strict=True):
    np.testing.assert_allclose(
      output.logprobs,
      examples.logprobs_of(arch, params, ids, output.token_ids, temperature),
      atol=1e-5,
    )


def test_first_tokens_follow_the_softmax(sampler, arch, params):
  """The whole path, keys included; the fixed keys make it exact to repeat."""
  ids, draws = examples.prompt(5, 20), 2000
  outputs = examples.sample_all(
    sampler, [request(ids, key=(n, 3), max_tokens=1) for n in range(draws)]
  )
  counts = np.bincount([o.token_ids[0] for o in outputs], minlength=264)
  logits_TV = examples.logits_of(arch, params, ids, [0])
  expected = np.asarray(jax.nn.softmax(logits_TV[0])) * draws
  big = expected >= 5
  seen = np.append(counts[big], counts[~big].sum())
  wanted = np.append(expected[big], expected[~big].sum())
  statistic = ((seen - wanted) ** 2 / wanted).sum()
  freedom = len(wanted) - 1
  assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_every_token_is_drawn_with_its_own_position(sampler, arch, params):
  """Replays a completion: uniform n of the key meets the full forward."""
  ids, key, count = examples.prompt(7, 21), (5, 6), 30
  (output,) = examples.sample_all(
    sampler, [request(ids, key=key, max_tokens=count, temperature=0.8)]
  )
  drawn = len(output.token_ids)
  logits_TV = examples.logits_of(arch, params, ids, output.token_ids)
  uniform_T = sampling.uniforms(
    np.tile(np.array(key, np.uint32), (drawn, 1)), np.arange(drawn)
  )
  constant = lambda value: np.full(drawn, value)
  token_T, _ = sampling.sample(
    logits_TV,
    uniform_T,
    constant(np.float32(0.8)),
    constant(0),
    constant(np.float32(1)),
    constant(np.float32(0)),
  )
  assert drawn > 8
  np.testing.assert_array_equal(token_T, output.token_ids)


def test_the_key_decides_the_tokens(sampler):
  ids = examples.prompt(1, 20)
  one, same, member, turn = examples.sample_all(
    sampler,
    [request(ids, key=key) for key in ((1, 2), (1, 2), (9, 2), (1, 9))],
  )
  assert one == same
  assert len({one.token_ids, member.token_ids, turn.token_ids}) == 3


def test_eos_ends_and_is_kept(sampler, arch, params):
  """At a high temperature some of 64 rows of 32 tokens draw eos."""
  ids = examples.prompt(2, 10)
  outputs = examples.sample_all(
    sampler,
    [
      request(ids, key=(n, 0), temperature=2.0, max_tokens=32)
      for n in range(64)
    ],
  )
  ended = [o for o in outputs if o.finish_reason == FinishReason.STOP]
  full = [o for o in outputs if o.finish_reason == FinishReason.LENGTH]
  assert len(ended) >= 3 and len(full) >= 3
  assert len(ended) + len(full) == 64
  for output in ended:
    assert output.token_ids[-1] == examples.EOS
    assert output.token_ids.count(examples.EOS) == 1
  for output in full:
    assert len(output.token_ids) == 32
    assert examples.EOS not in output.token_ids
  assert all(len(o.token_ids) == len(o.logprobs) for o in outputs)


@pytest.mark.parametrize("max_tokens", [1, 3, 4, 5, 8, 32])
def test_length_is_exact_and_a_prefix_of_more(sampler, max_tokens):
  ids = examples.prompt(3, 33)
  (longest, output) = examples.sample_all(
    sampler,
    [request(ids, max_tokens=32), request(ids, max_tokens=max_tokens)],
  )
  count = min(max_tokens, len(longest.token_ids))
  assert output.token_ids == longest.token_ids[:count]
  assert output.logprobs == longest.logprobs[:count]


def test_a_stop_string_cuts_at_the_token_that_completes_it(sampler):
  """Bytes are tokens: every ASCII pair that was drawn is tried as a stop."""
  decode = byte_tokenizer.ByteTokenizer().decode
  ids = examples.prompt(4, 12)
  keys = [(n, 4) for n in range(24)]
  free = examples.sample_all(
    sampler, [request(ids, key=key, max_tokens=32) for key in keys]
  )
  cases = [
    (key, output.token_ids, bytes(output.token_ids[i : i + 2]).decode())
    for key, output in zip(keys, free, strict=True)
    for i in range(1, len(output.token_ids) - 2)
    if max(output.token_ids[i : i + 2]) < 128
  ]
  cuts = examples.sample_all(
    sampler,
    [
      request(ids, key=key, max_tokens=32, stop=("\0nowhere", stop))
      for key, _, stop in cases
    ],
  )
  lengths = set()
  for (_, tokens, stop), cut in zip(cases, cuts, strict=True):
    length = next(n for n in range(33) if stop in decode(tokens[:n]))
    assert cut.token_ids == tokens[:length]
    assert len(cut.logprobs) == length
    assert cut.finish_reason == FinishReason.STOP
    lengths.add(length % 4)
  assert lengths == {0, 1, 2, 3}  # inside and at the ends of dispatches


def test_a_prompt_that_is_too_long_is_refused_before_any_compute(sampler):
  with pytest.raises(errors.PromptTooLongError) as caught:
    examples.sample_all(sampler, [request(examples.prompt(0, 65))])
  assert caught.value.prompt_tokens == 65
  assert caught.value.limit_tokens == 64
  assert sampler.metrics()["requests"] == 0


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    ({"prompt": []}, "empty"),
    ({"prompt": [264]}, "prompt ids"),
    ({"prompt": [-1]}, "prompt ids"),
    ({"max_tokens": 0}, "max_tokens=0"),
    ({"max_tokens": 33}, "max_completion_tokens=32"),
    ({"temperature": -1.0}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"min_p": -0.1}, "min_p"),
    ({"min_p": 1.5}, "min_p"),
    ({"stop": ("",)}, "stop"),
  ],
)
def test_a_request_that_can_not_be_answered_is_refused(sampler, bad, message):
  with pytest.raises(ValueError, match=message):
    examples.sample_all(sampler, [request(**{"prompt": [1, 2], **bad})])


def test_stop_strings_need_a_decoder(new_sampler):
  sampler = new_sampler(decode_text=None)
  with pytest.raises(ValueError, match="decode_text"):
    examples.sample_all(sampler, [request([1], stop=("x",))])
  asyncio.run(sampler.close())


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"slots": 0}, "slots=0"),
    ({"decode_steps": 0}, "decode_steps=0"),
    ({"prefill_chunk_tokens": 0}, "prefill_chunk_tokens=0"),
    ({"max_prompt_tokens": 500}, "max_positions=512"),
  ],
)
def test_sizes_that_do_not_fit_are_refused(new_sampler, sizes, message):
  with pytest.raises(errors.ConfigError, match=message):
    new_sampler(**sizes)


@pytest.mark.slow
def test_bfloat16_stays_near_the_full_forward(new_sampler, params):
  arch = tiny_model.tiny_architecture(dtype="bfloat16")
  sampler = new_sampler(arch=arch)
  prompts = [examples.prompt(seed, 20 + seed) for seed in range(8)]
  outputs = examples.sample_all(sampler, [request(p) for p in prompts])
  again = examples.sample_all(sampler, [request(p) for p in prompts[::-1]])
  asyncio.run(sampler.close())
  assert outputs == again[::-1]
  for ids, output in zip(prompts, outputs, strict=True):
    expected = examples.logprobs_of(arch, params, ids, output.token_ids)
    np.testing.assert_allclose(output.logprobs, expected, atol=0.2)


@pytest.mark.slow
def test_qwen3_norms_and_untied_heads_are_sampled_alike(new_sampler):
  arch = tiny_model.tiny_architecture(
    family="qwen3",
    tie_embeddings=False,
    num_heads=6,
    num_kv_heads=3,
    head_dim=16,
    vocab_size=300,
  )
  params = tiny_model.tiny_params(arch)
  sampler = new_sampler(arch=arch, params=params)
  prompts = [examples.prompt(seed, 20 + seed) for seed in range(4)]
  outputs = examples.sample_all(sampler, [request(p) for p in prompts])
  asyncio.run(sampler.close())
  for ids, output in zip(prompts, outputs, strict=True):
    np.testing.assert_allclose(
      output.logprobs,
      examples.logprobs_of(arch, params, ids, output.token_ids),
      atol=1e-5,
    )
