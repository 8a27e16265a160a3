import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import logprobs, objectives
from agentflow_jax.models import transformer


def _inputs(rows=2, tokens=6, entries=7, vocabulary_seed=0):
  rng = np.random.default_rng(vocabulary_seed)
  hidden = rng.normal(size=(rows, tokens, examples.ARCH.hidden_size))
  return (
    jnp.asarray(hidden, jnp.float32),
    jnp.asarray(rng.integers(0, tokens, (rows, entries))),
    jnp.asarray(rng.integers(0, examples.ARCH.vocab_size, (rows, entries))),
  )


def _score(hidden, parent, target, *, params=examples.PARAMS, **overrides):
  options = {"temperature": 0.7, "chunk_tokens": 1000} | overrides
  return logprobs.entry_logprobs(
    examples.ARCH, params, hidden, parent, target, **options
  )


def _expected(hidden, parent, target, temperature):
  """Float64 log-softmax of the whole [B, T, V] logits."""
  logits = transformer.project_logits(examples.ARCH, examples.PARAMS, hidden)
  logits = np.asarray(logits, np.float64) / temperature
  logits -= logits.max(-1, keepdims=True)
  scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  rows = np.arange(len(scores))[:, None]
  entropy = -(np.exp(scores) * scores).sum(-1)
  parent, target = np.asarray(parent), np.asarray(target)
  return scores[rows, parent, target], entropy[rows, parent]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_equals_full_log_softmax(temperature):
  inputs = _inputs()
  got, entropy = _score(*inputs, temperature=temperature, with_entropy=True)
  expected, expected_entropy = _expected(*inputs, temperature)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, atol=2e-6)
  np.testing.assert_allclose(entropy, expected_entropy, atol=5e-6)


def test_entropy_is_only_computed_when_asked():
  assert _score(*_inputs())[1] is None


def test_chunks_change_nothing():
  inputs = _inputs()

  def loss(hidden, params, chunk_tokens):
    scores, entropy = _score(
      hidden,
      *inputs[1:],
      params=params,
      chunk_tokens=chunk_tokens,
      with_entropy=True,
    )
    weight = jnp.arange(scores.size).reshape(scores.shape)
    return (weight * scores).sum() + (weight * entropy).sum(), scores

  # All at once; 3 chunks of 3, 2 of them padded; one entry per row at a time.
  both = jax.grad(loss, argnums=(0, 1), has_aux=True)
  whole = both(inputs[0], examples.PARAMS, 1000)
  for chunk_tokens in (6, 1):
    split = both(inputs[0], examples.PARAMS, chunk_tokens)
    for a, b in zip(
      jax.tree.leaves(whole), jax.tree.leaves(split), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def _largest_logits(function, *args):
  """Most elements of any intermediate whose last axis is the vocabulary."""
  most = 0
  vocabulary = examples.ARCH.vocab_size

  def visit(jaxpr):
    nonlocal most
    for equation in jaxpr.eqns:
      for variable in equation.outvars:
        shape = variable.aval.shape
        if len(shape) > 1 and shape[-1] == vocabulary:
          most = max(most, int(np.prod(shape)) // vocabulary)
      for value in equation.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
          if hasattr(inner, "jaxpr"):
            visit(inner.jaxpr)
          elif hasattr(inner, "eqns"):
            visit(inner)

  visit(jax.make_jaxpr(function)(*args).jaxpr)
  return most


def test_logits_exist_for_one_chunk_of_entries_only():
  config = config_lib.LearnerConfig(row_tokens=64, micro_batch_rows=4)
  on_mesh = examples.mesh()
  (batch, *_) = examples.batches(examples.samples(), config, on_mesh)

  def gradient(chunk_tokens):
    scoring = objectives.Scoring(temperature=0.7, chunk_tokens=chunk_tokens)
    objective = objectives.imitation(examples.ARCH, scoring)
    return jax.grad(lambda p: objective(p, None, batch)[0])

  # 4 rows x 64 tokens, 4 x 64 entries: 256 of each would be "everything".
  assert _largest_logits(gradient(16), examples.PARAMS) == 16
  assert _largest_logits(gradient(10_000), examples.PARAMS) == 256


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_greedy_can_not_be_scored(temperature):
  with pytest.raises(ValueError, match="temperature"):
    _score(*_inputs(), temperature=temperature)
