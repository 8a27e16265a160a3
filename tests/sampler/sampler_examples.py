"""Requests and the full forward that samplers are compared with."""

import asyncio
import functools

import jax
import jax.numpy as jnp
import numpy as np

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.models import attention, transformer
from agentflow_jax.sampler import sampler as sampler_lib

EOS = 257
_ROW_TOKENS = 96


def request(prompt, *, key=(1, 2), session=None, deadline=None, **sampling):
  """A request with 12 tokens at temperature 1 unless said otherwise."""
  late = {} if deadline is None else {"deadline": deadline}
  return sampler_lib.SampleRequest(
    prompt_ids=list(prompt),
    sampling=engine_lib.SamplingParams(**{"max_tokens": 12, **sampling}),
    key_words=key,
    session=session,
    **late,
  )


def prompt(seed: int, tokens: int) -> list[int]:
  return np.random.default_rng(seed).integers(0, 256, tokens).tolist()


def sample_all(sampler, requests):
  """All requests at once, in order."""

  async def run():
    return await asyncio.gather(*map(sampler.sample, requests))

  return asyncio.run(run())


@functools.partial(jax.jit, static_argnums=0)
def _logits(arch, params, tokens_BT):
  rows, tokens = tokens_BT.shape
  end_BT = jnp.full((rows, tokens), tokens)
  position_BT = jnp.broadcast_to(jnp.arange(tokens), (rows, tokens))
  hidden_BTD, _ = transformer.forward(
    arch, params, tokens_BT, position_BT, attention.tree_attend(end_BT)
  )
  return transformer.project_logits(arch, params, hidden_BTD)


def logits_of(arch, params, prompt_ids, completion_ids) -> np.ndarray:
  """[len(completion), V] logits that predict each completion token."""
  ids = [*prompt_ids, *completion_ids]
  row = np.zeros((1, _ROW_TOKENS), np.int32)
  row[0, : len(ids)] = ids
  logits_TV = np.asarray(_logits(arch, params, row))[0]
  return logits_TV[len(prompt_ids) - 1 : len(ids) - 1]


def logprobs_of(
  arch, params, prompt_ids, completion_ids, temperature=1.0
) -> np.ndarray:
  """Log-probabilities of a completion under the full forward."""
  logits_TV = logits_of(arch, params, prompt_ids, completion_ids)
  logprobs_TV = np.asarray(jax.nn.log_softmax(logits_TV / temperature))
  return logprobs_TV[np.arange(len(completion_ids)), list(completion_ids)]
