"""The assembled loss against the oracle, and its gradient in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import pytest

from agentflow_jax.batching import device_batch, packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import objectives
from agentflow_jax.models import architecture
from agentflow_jax.testing import loss_oracle

_OPTIONS = {
  "plain": {},
  "clip_bounds": {"clip_low": 0.05, "clip_high": 0.1},
  "dual_clip": {"dual_clip": 1.3},
  "kl_k1": {"kl_coefficient": 0.5, "kl_estimator": "k1"},
  "kl_k2": {"kl_coefficient": 0.5, "kl_estimator": "k2"},
  "kl_k3": {"kl_coefficient": 0.5, "kl_estimator": "k3"},
  "entropy": {"entropy_coefficient": 0.2},
  "sequence": {"ratio": "sequence", "clip_low": 0.05, "clip_high": 0.05},
  "truncated": {"importance_cap": 1.1},
  "everything": {
    "ratio": "sequence",
    "importance_cap": 1.2,
    "dual_clip": 1.1,
    "kl_coefficient": 0.3,
    "entropy_coefficient": 0.1,
  },
}


def _config(**options):
  defaults = {"kl_coefficient": 0.0, "row_tokens": 64, "micro_batch_rows": 4}
  return config_lib.LearnerConfig(**(defaults | options))


def _ragged_samples(seed):
  """Groups of any shape; behavior logprobs are numbers from nowhere."""
  rng = np.random.default_rng(seed)
  made = []
  for group in range(rng.integers(1, 4)):
    question = rng.integers(0, 5, rng.integers(1, 6))
    for member in range(rng.integers(1, 4)):
      memory = question
      for turn in range(rng.integers(1, 4)):
        length = int(rng.integers(1, 6))
        made.append(
          examples.TrainingSample(
            prompt_ids=memory.astype(np.int32),
            completion_ids=rng.integers(0, 4, length).astype(np.int32),
            behavior_logprobs=rng.uniform(-4, -0.5, length).astype(np.float32),
            advantage=float(rng.normal()),
            weight=float(rng.uniform(0.5, 1.5)) / (20 * length),
            group=group,
            trajectory=member,
            turn=turn,
          )
        )
        memory = np.append(memory, rng.integers(0, 4, 3))
  return made


def _spread(rows, batch, per_sample):
  """One array per sample -> entries [B, E] of a packed batch."""
  out = np.zeros(batch.weight_BE.shape, np.float32)
  for entries_E, row in zip(out, rows, strict=False):
    values = np.concatenate([per_sample[n] for n in row.samples])
    entries_E[: len(values)] = values
  return out


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", _OPTIONS)
def test_loss_and_its_slope_equal_the_oracle(name, recompute, monkeypatch):
  """On 6 ragged batches for each of the options, 120 in all."""
  options = _OPTIONS[name]
  # The "network" is the table of logprobs and entropies itself.
  monkeypatch.setattr(
    objectives, "score_batch", lambda a, s, params, b, **_: params
  )
  scoring = objectives.Scoring(temperature=1.0, chunk_tokens=1)
  objective = objectives.flow_grpo(examples.ARCH, scoring, _config(**options))
  run = jax.jit(
    jax.value_and_grad(
      lambda current, entropy, reference, batch: objective(
        (current, entropy), (reference, None), batch
      )[0]
    )
  )
  for seed in range(6):
    _compare_with_the_oracle(run, options, recompute, seed)


def _compare_with_the_oracle(run, options, recompute, seed):
  samples = _ragged_samples(seed)
  rng = np.random.default_rng(seed)

  def near(scale):
    return [
      s.behavior_logprobs + rng.normal(0, scale, len(s.behavior_logprobs))
      for s in samples
    ]

  current, reference = near(0.3), near(0.6)
  recomputed = near(0.2) if recompute else None
  entropy = [rng.random(len(s.behavior_logprobs)) for s in samples]
  rows = packing.pack_samples(samples, row_tokens=64).rows
  (batch,) = device_batch.to_micro_batches(
    rows, row_tokens=64, batch_rows=8, entries=96
  )
  if recomputed is not None:
    batch = dataclasses.replace(
      batch, recomputed_logprob_BE=_spread(rows, batch, recomputed)
    )
  loss, slope_BE = run(
    *(_spread(rows, batch, x) for x in (current, entropy, reference)), batch
  )

  def oracle(current):
    return loss_oracle.oracle_loss(
      [
        loss_oracle.OracleSample(
          current=current[n],
          behavior=s.behavior_logprobs.tolist(),
          recomputed=() if recomputed is None else recomputed[n].tolist(),
          reference=reference[n].tolist(),
          entropy=entropy[n].tolist(),
          advantage=s.advantage,
          weight=s.weight,
        )
        for n, s in enumerate(samples)
      ],
      loss_oracle.OracleOptions(**options),
    )

  np.testing.assert_allclose(loss, oracle(current), rtol=2e-5, atol=1e-6)
  if seed or (options.get("importance_cap") and not recompute):
    return  # a truncated ratio's gradient is not the slope of its value
  slopes = []
  for n, logprobs in enumerate(current):
    slopes.append(np.zeros(len(logprobs)))
    for j in range(len(logprobs)):
      moved = [[c.copy() for c in current] for _ in range(2)]
      moved[0][n][j] += 1e-6
      moved[1][n][j] -= 1e-6
      slopes[n][j] = (oracle(moved[0]) - oracle(moved[1])) / 2e-6
  np.testing.assert_allclose(
    slope_BE, _spread(rows, batch, slopes), rtol=1e-3, atol=1e-6
  )


def _float64(tree):
  return jax.tree.map(
    lambda x: (
      np.asarray(x, np.float64)
      if np.issubdtype(np.asarray(x).dtype, np.floating)
      else np.asarray(x)
    ),
    tree,
  )


def _moved(params, direction, step):
  return jax.tree.map(lambda p, d: p + step * d, params, direction)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "kl_k3", "entropy", "sequence"])
def test_gradient_equals_finite_differences_in_float64(name, monkeypatch):
  # Every "float32" the code asks for becomes float64, so that differences of
  # the loss through the whole network are exact enough to compare.
  monkeypatch.setattr(jnp, "float32", np.float64)
  monkeypatch.setattr(architecture, "_DTYPES", ("float64",))
  with jax.enable_x64(True):
    arch = dataclasses.replace(examples.ARCH, num_layers=1, dtype="float64")
    params = _float64(examples.tiny_model.tiny_params(arch))
    samples = examples.samples(2, 2, 2, arch=arch, params=params)
    config = _config(**_OPTIONS[name])
    rows = packing.pack_samples(samples, row_tokens=64).rows
    (batch,) = device_batch.to_micro_batches(
      rows, row_tokens=64, batch_rows=len(rows)
    )
    batch = _float64(batch)
    scoring = objectives.Scoring(temperature=0.7, chunk_tokens=16)
    objective = objectives.flow_grpo(arch, scoring, config)
    reference = jax.tree.map(lambda x: x * 1.05, params)
    loss = jax.jit(lambda p: objective(p, reference, batch)[0])
    gradient = jax.jit(jax.grad(loss))(params)
    rng = np.random.default_rng(0)
    for _ in range(3):
      direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)

      up = loss(_moved(params, direction, 1e-6))
      down = loss(_moved(params, direction, -1e-6))
      expected = float(up - down) / 2e-6
      got = sum(
        float((g * d).sum())
        for g, d in zip(
          jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
        )
      )
      assert np.asarray(jax.tree.leaves(gradient)[0]).dtype == np.float64
      np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_unknown_ratio():
  scoring = objectives.Scoring(temperature=1.0, chunk_tokens=1)
  objective = objectives.flow_grpo(
    examples.ARCH, scoring, _config(ratio="word")
  )
  (batch,) = device_batch.to_micro_batches(
    packing.pack_samples(examples.samples(1, 1, 1), row_tokens=64).rows,
    row_tokens=64,
    batch_rows=1,
  )
  with pytest.raises(ValueError, match="word"):
    jax.eval_shape(lambda p: objective(p, None, batch), examples.PARAMS)
