"""One optimizer step: equal by construction however the work is split."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import optax
import pytest

from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import losses, objectives
from agentflow_jax.models import architecture, transformer

_SAMPLES = examples.samples()


_config = examples.step_config


def _learner(config, on_mesh=None, arch=None):
  return learner_lib.Learner(
    arch or examples.ARCH,
    config,
    temperature=examples.TEMPERATURE,
    mesh=on_mesh or examples.mesh(),
    total_steps=100,
  )


def _step(config, on_mesh=None, sample_list=_SAMPLES):
  """(gradient, metrics) of one update from the start parameters."""
  on_mesh = on_mesh or examples.mesh()
  learner = _learner(config, on_mesh)
  state, metrics = learner.update(
    learner.init_state(examples.PARAMS),
    jax.tree.map(_in_dtype, examples.batches(sample_list, config, on_mesh)),
    examples.REFERENCE,
  )
  moment = optax.tree_utils.tree_get(state.opt_state.inner, "mu")
  return jax.tree.map(np.asarray, moment), metrics


def _in_dtype(array):
  """Floats of a batch in the type that the network computes in."""
  is_float = jnp.issubdtype(array.dtype, jnp.floating)
  return array.astype(examples.ARCH.dtype) if is_float else array


def _distance(first, second):
  """Norm of the difference over the norm."""
  difference = jax.tree.map(lambda a, b: a - b, first, second)
  return float(
    optax.tree_utils.tree_norm(difference) / optax.tree_utils.tree_norm(first)
  )


@pytest.fixture(scope="module")
def base():
  return _step(_config())


def _naive_loss(params):
  """Flow-GRPO on unpacked rows with all logits, one sample per row."""
  ids = examples.padded(_SAMPLES)
  scores = [
    jax.nn.log_softmax(
      examples.full_logits(examples.ARCH, p, ids) / examples.TEMPERATURE
    )
    for p in (params, examples.REFERENCE)
  ]
  loss = 0.0
  for n, s in enumerate(_SAMPLES):
    where = len(s.prompt_ids) - 1 + np.arange(len(s.completion_ids))
    current, reference = (
      score[n, where, s.completion_ids][None] for score in scores
    )
    ratio = jnp.exp(current - s.behavior_logprobs)
    clipped = jnp.clip(ratio, 0.8, 1.3)
    gain = jnp.minimum(ratio * s.advantage, clipped * s.advantage)
    distance = losses.kl(current, reference, "k3")
    loss += s.weight * (-gain + 0.1 * distance).sum()
  return loss


def test_packed_step_equals_unpacked_per_turn_training(base):
  gradient, metrics = base
  loss, expected = jax.jit(jax.value_and_grad(_naive_loss))(examples.PARAMS)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  assert _distance(expected, gradient) < 1e-5
  np.testing.assert_allclose(
    metrics["grad_norm"], optax.tree_utils.tree_norm(expected), rtol=1e-5
  )


_SPLITS = [
  ({"micro_batch_rows": 1}, (1, 1, 1)),
  ({"row_tokens": 96}, (1, 1, 1)),
  ({"loss_chunk_tokens": 8}, (1, 1, 1)),
  ({"packing": "rows"}, (1, 1, 1)),
  ({"micro_batch_rows": 1}, (8, 1, 1)),
  ({"micro_batch_rows": 1}, (2, 2, 2)),
]


@pytest.fixture
def float64(monkeypatch):
  """The same programs with float64 wherever they say float32."""
  monkeypatch.setattr(jnp, "float32", jnp.float64)
  monkeypatch.setattr(architecture, "_DTYPES", ("float64",))
  arch = dataclasses.replace(examples.ARCH, dtype="float64")
  monkeypatch.setattr(examples, "ARCH", arch)
  with jax.enable_x64(True):
    for name in ("PARAMS", "REFERENCE"):
      wide = jax.tree.map(
        lambda p: np.asarray(p, np.float64), getattr(examples, name)
      )
      monkeypatch.setattr(examples, name, wide)
    yield


def test_gradient_does_not_depend_on_the_split(float64):
  gradient, metrics = _step(_config())
  assert jax.tree.leaves(gradient)[0].dtype == np.float64
  for fields, axes in _SPLITS:
    other, other_metrics = _step(_config(**fields), examples.mesh(*axes))
    assert _distance(gradient, other) < 1e-12, (fields, axes)
    for name in ("loss", "kl", "tokens", "ratio_mean", "clip_fraction"):
      np.testing.assert_allclose(
        other_metrics[name],
        metrics[name],
        rtol=1e-6,
        err_msg=f"{name} {fields}",
      )


# Float32 keeps seven digits, and XLA sums every shape in its own order: these
# two miss 1e-6 on some CPUs (1.04e-6) and hold on others.
_ON_THE_EDGE = pytest.mark.xfail(reason="1.04e-6 on some CPUs", strict=False)


@pytest.mark.parametrize(
  ("fields", "axes", "limit"),
  [
    pytest.param({"micro_batch_rows": 1}, (1, 1, 1), 1e-6, marks=_ON_THE_EDGE),
    ({"row_tokens": 96}, (1, 1, 1), 1e-6),
    ({"loss_chunk_tokens": 8}, (1, 1, 1), 1e-6),
    ({"packing": "rows"}, (1, 1, 1), 1e-5),
    pytest.param({"micro_batch_rows": 1}, (8, 1, 1), 1e-6, marks=_ON_THE_EDGE),
    # Splitting a contraction over "tensor" rounds differently everywhere.
    ({"micro_batch_rows": 1}, (2, 2, 2), 3e-6),
  ],
)
def test_float32_adds_no_more_than_rounding(base, fields, axes, limit):
  gradient, metrics = base
  other, other_metrics = _step(_config(**fields), examples.mesh(*axes))
  assert _distance(gradient, other) < limit
  for name in ("loss", "kl", "tokens", "ratio_mean", "clip_fraction"):
    np.testing.assert_allclose(
      other_metrics[name], metrics[name], rtol=1e-5, err_msg=name
    )


def test_gradient_does_not_depend_on_the_order(base):
  shuffled = list(_SAMPLES)
  np.random.default_rng(3).shuffle(shuffled)
  assert _distance(base[0], _step(_config(), sample_list=shuffled)[0]) < 1e-6


def test_metrics_are_those_of_the_trained_tokens(base):
  metrics = base[1]
  current = np.concatenate(examples.naive_logprobs(_SAMPLES))
  behavior = np.concatenate([s.behavior_logprobs for s in _SAMPLES])
  advantage = np.concatenate(
    [[s.advantage] * len(s.completion_ids) for s in _SAMPLES]
  )
  drift, ratio = np.abs(current - behavior), np.exp(current - behavior)
  low = (ratio < 0.8) & (advantage < 0)
  high = (ratio > 1.3) & (advantage > 0)
  assert low.any()
  assert high.any()
  expected = {
    "tokens": len(ratio),
    "ratio_mean": ratio.mean(),
    "ratio_max": ratio.max(),
    "drift_outside": ((ratio < 0.9) | (ratio > 1.1)).mean(),
    "drift_mean": drift.mean(),
    "drift_max": drift.max(),
    "clip_fraction_low": low.mean(),
    "clip_fraction_high": high.mean(),
    "clip_fraction": (low | high).mean(),
    "lr": 1e-2,
    "skipped": 0,
    "skipped_steps": 0,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
  p99 = np.quantile(drift, 0.99, method="higher")
  assert p99 / 1.001 <= metrics["drift_p99"] <= 1.2 * p99
  assert all(type(value) is float for value in metrics.values())
  assert "entropy" not in metrics


# The tests below share one learner, hence its compiled programs.


@pytest.fixture(scope="module")
def shared():
  config = _config(
    kl_coefficient=0.0, micro_batch_rows=1, max_non_finite_steps=3, b1=0.9
  )
  batch_list = examples.batches(_SAMPLES, config, examples.mesh())
  assert len(batch_list) > 2
  return _learner(config), list(batch_list)


def _bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_score_equals_unpacked_scoring(shared):
  learner, batch_list = shared
  scores = [learner.score(examples.PARAMS, batch) for batch in batch_list]
  assert scores[0].dtype == jnp.float32
  got = examples.per_sample(batch_list, _SAMPLES, scores)
  for a, b in zip(got, examples.naive_logprobs(_SAMPLES), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_more_micro_batches_compile_nothing(shared):
  learner, batch_list = shared
  state = learner.init_state(examples.PARAMS)
  state, _ = learner.update(state, batch_list[:2])
  programs = learner.compiles
  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **details: events.append(f"{event} {details}")
  )
  for count in (1, 2, 3):
    state, _ = learner.update(state, batch_list[:count])
  assert learner.compiles == programs
  assert not [event for event in events if "compile" in event]
  jax.jit(lambda x: x * 3)(1.0)  # the listener does hear compiles
  assert [event for event in events if "compile" in event]


def test_update_consumes_the_state_but_not_the_caller_s_parameters(shared):
  learner, batch_list = shared
  before = _bits(examples.PARAMS)
  state = learner.init_state(examples.PARAMS)
  after, _ = learner.update(state, batch_list)
  assert _bits(examples.PARAMS) == before
  assert state.params["embedding_VD"].is_deleted()
  assert int(after.step) == 1
  assert _bits(after.params) != before


def test_nothing_to_learn_leaves_the_state_alone(shared):
  learner, _ = shared
  state = learner.init_state(examples.PARAMS)
  after, metrics = learner.update(state, [])
  assert after is state
  assert metrics == {"tokens": 0.0}


def _poisoned(batch, field, value):
  placed = getattr(batch, field)
  array = np.array(placed)
  array[0, 0] = value
  array = jax.device_put(array, placed.sharding)
  return dataclasses.replace(batch, **{field: array})


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("weight_BE", np.nan),
    ("weight_BE", np.inf),
    ("advantage_BE", np.nan),
    ("advantage_BE", -np.inf),
    ("behavior_logprob_BE", np.nan),
    ("params", np.nan),
    ("params", np.inf),
  ],
)
def test_a_non_finite_step_changes_no_bit(shared, field, value):
  learner, batch_list = shared
  params = dict(examples.PARAMS)
  bad = batch_list
  if field == "params":
    params["embedding_VD"] = params["embedding_VD"].at[3, 2].set(value)
  else:
    bad = [batch_list[0], _poisoned(batch_list[1], field, value)]
  state = learner.init_state(params)
  if field != "params":  # moments that are not all zero
    state, _ = learner.update(state, batch_list)
  before = _bits((state.params, state.opt_state, state.step))
  state, metrics = learner.update(state, bad)
  assert _bits((state.params, state.opt_state, state.step)) == before
  assert (int(state.skipped), int(state.consecutive_skipped)) == (1, 1)
  assert (metrics["skipped"], metrics["skipped_steps"]) == (1, 1)
  assert not np.isfinite(metrics["loss"] + metrics["grad_norm"])


def test_non_finite_steps_in_a_row_abort_and_a_good_one_resets(shared):
  learner, batch_list = shared
  bad = [_poisoned(batch_list[0], "weight_BE", np.nan)]
  state = learner.init_state(examples.PARAMS)
  for _ in range(2):
    state, _ = learner.update(state, bad)
  state, metrics = learner.update(state, batch_list)
  assert (int(state.skipped), int(state.consecutive_skipped)) == (2, 0)
  assert (metrics["skipped"], metrics["skipped_steps"]) == (0, 2)
  assert int(state.step) == 1
  for _ in range(2):
    state, _ = learner.update(state, bad)
  with pytest.raises(learner_lib.TrainingDivergedError, match="3 optimizer"):
    learner.update(state, bad)


def test_imitation_is_weighted_likelihood_at_temperature_1(shared):
  learner, batch_list = shared
  scores = examples.naive_logprobs(_SAMPLES, temperature=1.0)
  weighted = [s.weight * c.sum() for s, c in zip(_SAMPLES, scores, strict=True)]
  # Advantages and behavior logprobs must not be read.
  batch_list = [
    dataclasses.replace(
      batch,
      advantage_BE=batch.advantage_BE * jnp.nan,
      behavior_logprob_BE=batch.behavior_logprob_BE * jnp.nan,
    )
    for batch in batch_list
  ]
  state = learner.init_state(examples.PARAMS)
  state, first = learner.update(state, batch_list, objective="imitation")
  np.testing.assert_allclose(first["loss"], -sum(weighted), rtol=1e-5)
  tokens = np.concatenate(scores)
  np.testing.assert_allclose(first["nll"], -tokens.mean(), rtol=1e-5)
  assert first["tokens"] == len(tokens)
  for _ in range(10):
    state, last = learner.update(state, batch_list, objective="imitation")
  assert last["nll"] < 0.5 * first["nll"]


def test_a_two_armed_bandit_learns_the_paying_arm():
  config = _config(kl_coefficient=0.0, lr=5e-3, row_tokens=8, packing="rows")
  on_mesh = examples.mesh()
  learner = _learner(config, on_mesh)
  state = learner.init_state(examples.PARAMS)
  rng = np.random.default_rng(0)
  arms = np.array([11, 10])  # the one that pays starts below 0.2

  def pull(arm, reward, logprob, weight=1 / 8):
    return dataclasses.replace(
      _SAMPLES[0],
      prompt_ids=np.array([7], np.int32),
      completion_ids=arms[[arm]].astype(np.int32),
      behavior_logprobs=np.array([logprob], np.float32),
      advantage=float(reward),
      weight=weight,
    )

  probe = [pull(arm, 0, 0.0, weight=1 + arm) for arm in (0, 1)]
  (probe_batch,) = examples.batches(probe, config, on_mesh)
  history = []
  for _ in range(15):
    scores = learner.score(state.params, probe_batch)
    logprobs = np.concatenate(
      examples.per_sample([probe_batch], probe, [scores])
    )
    chance = np.exp(logprobs[0]) / np.exp(logprobs).sum()
    history.append(chance)
    pulled = (rng.random(8) > chance).astype(int)
    won = np.where(pulled == 0, 1.0, -1.0)
    pulls = [pull(a, r, logprobs[a]) for a, r in zip(pulled, won, strict=True)]
    state, metrics = learner.update(
      state, examples.batches(pulls, config, on_mesh)
    )
    assert metrics["drift_max"] < 1e-5  # on-policy, so every ratio is 1
  assert history[0] < 0.2
  assert history[-1] > 0.95


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_the_reference_costs_nothing_without_kl(kl, monkeypatch):
  calls = collections.Counter()
  forward = transformer.forward

  def counted(arch, params, *args, **kwargs):
    calls["forward"] += 1
    return forward(arch, params, *args, **kwargs)

  monkeypatch.setattr(objectives.transformer, "forward", counted)
  learner = _learner(_config(kl_coefficient=kl))
  batch_list = examples.batches(_SAMPLES, _config(), examples.mesh())
  state = learner.init_state(examples.PARAMS)
  _, metrics = learner.update(state, batch_list, examples.REFERENCE)
  assert calls["forward"] == (2 if kl else 1)
  assert ("kl" in metrics) == bool(kl)


def test_bfloat16_parameters_train_through_their_masters():
  arch = dataclasses.replace(examples.ARCH, dtype="bfloat16", num_layers=1)
  params = examples.tiny_model.tiny_params(arch)
  params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
  config = _config(kl_coefficient=0.0, lr=1e-6, entropy_coefficient=0.01)
  learner = _learner(config, arch=arch)
  state = learner.init_state(params)
  start = jax.tree.map(np.asarray, state.opt_state.masters)
  batch_list = examples.batches(_SAMPLES, config, examples.mesh())
  state, metrics = learner.update(state, batch_list)
  assert {p.dtype for p in jax.tree.leaves(state.params)} == {
    jnp.dtype(jnp.bfloat16)
  }
  moved = jax.tree.map(
    lambda a, b: float(np.abs(a - b).max()), start, state.opt_state.masters
  )
  assert all(1e-7 < value < 2e-6 for value in jax.tree.leaves(moved))
  assert metrics["entropy"] > 0


def test_too_much_drift_aborts():
  config = _config(max_drift=0.1)
  learner = _learner(config)
  batch_list = examples.batches(_SAMPLES, config, examples.mesh())
  with pytest.raises(learner_lib.TrainingDivergedError, match="max_drift=0.1"):
    learner.update(
      learner.init_state(examples.PARAMS), batch_list, examples.REFERENCE
    )


def test_bad_arguments():
  with pytest.raises(ValueError, match="temperature"):
    learner_lib.Learner(
      examples.ARCH,
      _config(),
      temperature=0.0,
      mesh=examples.mesh(),
      total_steps=1,
    )
  learner = _learner(_config())
  state = learner.init_state(examples.PARAMS)
  with pytest.raises(ValueError, match="needs reference_params"):
    learner.update(state, [object()])
  with pytest.raises(ValueError, match="sft"):
    learner.update(state, [object()], objective="sft")
