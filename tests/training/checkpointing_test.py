"""Checkpoints: same bits, any mesh, the right ones kept, mismatches named."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from agentflow_jax.core import errors
from agentflow_jax.training import array_store, checkpointing

Checkpointer = checkpointing.Checkpointer


def _state(step: int = 0):
  """What a trainer saves: params, optimizer moments, keys, counters."""
  rng = np.random.default_rng(step)
  params = {
    "w": jnp.asarray(rng.standard_normal((8, 8)), jnp.float32),
    "layers": {"up": jnp.asarray(rng.standard_normal((2, 8)), jnp.bfloat16)},
  }
  return {
    "params": params,
    "opt_state": (jax.tree.map(jnp.ones_like, params), jnp.int32(step)),
    "key": jnp.asarray([step, 2**32 - 1], jnp.uint32),
    "odd": jnp.asarray([math.nan, -0.0, math.inf, 1e-45], jnp.float32),
    "host": np.arange(step, step + 3, dtype=np.int64),
  }


def _shapes(state):
  def shape(leaf):
    if isinstance(leaf, np.ndarray):
      return np.empty_like(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

  return jax.tree.map(shape, state)


def _same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert isinstance(a, np.ndarray) == isinstance(b, np.ndarray)
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _open(path, **settings):
  return Checkpointer(path, **({"keep_last": 2, "keep_best": True} | settings))


def _fill(path, accuracies, **settings):
  """Saves steps 1, 2, ... with these accuracies; None is not evaluated."""
  with _open(path, **settings) as checkpointer:
    for step, accuracy in enumerate(accuracies, start=1):
      # Any scalar will do, as from a mean over an array.
      metrics: dict[str, Any] = {}
      if accuracy is not None:
        metrics["accuracy"] = np.float32(accuracy)
      checkpointer.save(step, {"w": jnp.zeros(1)}, {}, metrics=metrics)
  return checkpointer


def test_a_state_comes_back_bit_for_bit(tmp_path):
  extra = {"position": 384, "best": 0.1 + 0.2, "names": ["é"], "none": None}
  with _open(tmp_path) as checkpointer:
    checkpointer.save(3, _state(3), extra, wait=True)
    state, found = checkpointer.restore(_shapes(_state(3)))
  _same_bits(state, _state(3))
  assert found == extra


def test_another_process_finds_it(tmp_path):
  with _open(tmp_path) as checkpointer:
    checkpointer.save(3, _state(3), {})
  reader = _open(tmp_path)
  assert reader.latest_step() == 3
  _same_bits(reader.restore(_shapes(_state(3)))[0], _state(3))


def test_what_is_overwritten_after_save_returns_does_not_show(tmp_path):
  clear = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
  with _open(tmp_path) as checkpointer:
    for step in (1, 2):
      host = np.arange(2**18, dtype=np.float32) + step
      device = jax.jit(lambda s: jnp.arange(2**18, dtype=jnp.float32) + s)(step)
      checkpointer.save(step, {"host": host, "device": device}, {})
      host[:] = -1
      jax.block_until_ready(clear(device))
    target = {"host": np.empty(2**18, np.float32)}
    target |= {"device": jax.ShapeDtypeStruct((2**18,), jnp.float32)}
    checkpointer.wait()
    for step in (1, 2):
      state, _ = checkpointer.restore(target, step)
      for found in state.values():
        expected = np.arange(2**18, dtype=np.float32) + step
        np.testing.assert_array_equal(np.asarray(found), expected)


def _mesh(*shape):
  names = ("a", "b")[: len(shape)]
  return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))


def test_a_state_moves_to_another_mesh(tmp_path):
  values = jnp.arange(64, dtype=jnp.bfloat16).reshape(8, 8)
  saved = NamedSharding(_mesh(8), P("a"))
  with _open(tmp_path) as checkpointer:
    state = {"w": jax.device_put(values, saved)}
    checkpointer.save(1, state, {}, wait=True)
    for sharding in (
      NamedSharding(_mesh(2, 4), P("a", "b")),
      NamedSharding(_mesh(2, 4), P(None, ("b", "a"))),
      NamedSharding(_mesh(4, 2), P()),
      jax.sharding.SingleDeviceSharding(jax.devices()[3]),
    ):
      target = jax.ShapeDtypeStruct((8, 8), jnp.bfloat16, sharding=sharding)
      found, _ = checkpointer.restore({"w": target})
      assert found["w"].sharding == sharding
      np.testing.assert_array_equal(np.asarray(found["w"]), np.asarray(values))


def test_a_part_of_a_state_can_be_restored(tmp_path):
  with _open(tmp_path) as checkpointer:
    checkpointer.save(1, _state(1), {}, wait=True)
    target = {"params": _shapes(_state(1))["params"]}
    state, _ = checkpointer.restore(target)
  _same_bits(state, {"params": _state(1)["params"]})


@pytest.mark.parametrize(
  ("accuracies", "settings", "kept"),
  [
    ([None] * 4, {}, [3, 4]),
    ([None] * 4, {"keep_last": 1}, [4]),
    ([0.1, 0.9, 0.2, 0.3, None], {}, [2, 4, 5]),
    ([0.1, 0.9, 0.2, 0.3, None], {"keep_best": False}, [4, 5]),
    ([0.5, 0.5, 0.5, 0.5], {"keep_last": 1}, [1, 4]),
    ([math.nan, 0.1, math.nan, None], {"keep_last": 1}, [2, 4]),
    ([0.1, 0.2, 0.3], {"keep_last": 1}, [3]),
  ],
)
def test_the_last_and_the_best_are_kept(tmp_path, accuracies, settings, kept):
  checkpointer = _fill(tmp_path, accuracies, **settings)
  assert checkpointer.all_steps() == kept
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    f"step_{step:08d}" for step in kept
  ]
  assert checkpointer.latest_step() == kept[-1]


def test_the_best_is_kept_across_processes(tmp_path):
  _fill(tmp_path, [0.9, 0.1])
  with _open(tmp_path, keep_last=1) as checkpointer:
    for step in (3, 4):
      metrics = {"accuracy": 0.2}
      checkpointer.save(step, {"w": jnp.zeros(1)}, {}, metrics=metrics)
  assert checkpointer.all_steps() == [1, 4]
  assert checkpointer.best_step() == 1
  assert checkpointer.best_or_latest().name == "step_00000001"


def test_without_metrics_the_latest_is_wanted(tmp_path):
  checkpointer = _fill(tmp_path, [None, None])
  assert checkpointer.best_step() is None
  assert checkpointer.best_or_latest().name == "step_00000002"


def test_an_old_checkpoint_goes_only_when_the_new_one_is_there(
  tmp_path, monkeypatch
):
  seen = []
  commit = array_store._commit

  def spy(directory, info):
    seen.append(_open(tmp_path).all_steps())
    commit(directory, info)

  monkeypatch.setattr(array_store, "_commit", spy)
  _fill(tmp_path, [None] * 3, keep_last=1)
  assert seen == [[], [1], [2]]


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      {"params": {"w": np.zeros((8, 9), np.float32)}},
      "params/w is float32[8, 8], expected float32[8, 9]",
    ),
    (
      {"params": {"w": np.zeros((8, 8), np.float16)}},
      "params/w is float32[8, 8], expected float16[8, 8]",
    ),
    ({"params": {"v": np.zeros(3)}}, "lacks params/v"),
    ({"opt_state": (np.zeros(3),)}, "lacks opt_state/0"),
  ],
)
def test_a_mismatch_names_the_array_and_both_shapes(tmp_path, change, words):
  with _open(tmp_path) as checkpointer:
    checkpointer.save(1, _state(1), {}, wait=True)
    with pytest.raises(errors.CheckpointError) as caught:
      checkpointer.restore(change)
  assert words in str(caught.value)
  assert "\n" not in str(caught.value)


def test_nothing_to_restore_is_named(tmp_path):
  checkpointer = _open(tmp_path / "none")
  assert checkpointer.all_steps() == []
  assert checkpointer.latest_step() is None
  for step in (None, 7):
    with pytest.raises(errors.CheckpointError, match="no complete checkpoint"):
      checkpointer.restore({}, step)
  with pytest.raises(errors.CheckpointError, match="no complete checkpoint"):
    checkpointer.best_or_latest()


def test_a_step_is_saved_once(tmp_path):
  with _open(tmp_path) as checkpointer:
    checkpointer.save(1, {"w": jnp.zeros(1)}, {})
    with pytest.raises(errors.CheckpointError, match="already"):
      checkpointer.save(1, {"w": jnp.ones(1)}, {})
  found, _ = checkpointer.restore({"w": np.empty(1, np.float32)})
  assert found["w"] == 0


def test_an_extra_that_json_changes_is_refused(tmp_path):
  with _open(tmp_path) as checkpointer:
    for extra in ({"a": (1, 2)}, {1: "a"}):
      with pytest.raises(ValueError, match="does not survive JSON"):
        checkpointer.save(1, {"w": jnp.zeros(1)}, extra)  # pyright: ignore


@pytest.mark.parametrize(
  ("leaf", "words"),
  [(3, "a/b is no array"), (jax.random.key(0), "a/b is a typed key")],
)
def test_a_leaf_that_is_no_array_is_refused(tmp_path, leaf, words):
  with _open(tmp_path) as checkpointer, pytest.raises(TypeError, match=words):
    checkpointer.save(1, {"a": {"b": leaf}}, {})


def test_a_failed_write_is_told_at_the_next_call(tmp_path, monkeypatch):
  def full(directory, info):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(array_store, "_commit", full)
  checkpointer = _open(tmp_path)
  checkpointer.save(1, {"w": jnp.zeros(1)}, {})
  with pytest.raises(errors.CheckpointError) as caught:
    checkpointer.wait()
  assert "step_00000001 can not be written" in str(caught.value)
  assert "No space left on device" in str(caught.value)
  checkpointer.close()
  assert checkpointer.latest_step() is None


def _damage(name):
  def truncate(path):
    (file,) = [p for p in path.rglob("*") if p.name == name]
    file.write_bytes(file.read_bytes()[:-1])

  return truncate


def _remove_data(path):
  next(p for p in path.rglob("d/*") if p.is_file()).unlink()


@pytest.mark.parametrize(
  "damage",
  [_damage("_METADATA"), _damage("checkpoint.json"), _remove_data],
)
def test_a_damaged_checkpoint_is_skipped_and_told(tmp_path, damage, caplog):
  _fill(tmp_path, [0.1, 0.9])
  damage(tmp_path / "step_00000002")
  checkpointer = _open(tmp_path)
  with caplog.at_level("WARNING", logger="absl"):
    assert checkpointer.latest_step() == 1
    assert checkpointer.best_step() == 1
  told = [r for r in caplog.records if "skipping incomplete" in r.getMessage()]
  assert len(told) == 1
  assert "step_00000002" in told[0].getMessage()


def test_reading_waits_for_the_own_save(tmp_path, caplog):
  """So that nobody takes a save in progress for a torn or a missing one."""
  state = {"w": jnp.arange(2**20, dtype=jnp.float32)}
  checkpointer = _open(tmp_path, keep_last=1)
  reads = (
    checkpointer.latest_step,
    checkpointer.best_step,
    lambda: checkpointer.read(3)["step"],
    lambda: checkpointer.restore(state, 4)[1]["step"],
    lambda: checkpointer.all_steps()[-1],
  )
  with caplog.at_level("WARNING", logger="absl"), checkpointer:
    for step, read in enumerate(reads, start=1):
      metrics = {"accuracy": float(step)}
      checkpointer.save(step, state, {"step": step}, metrics=metrics)
      assert read() == step
  assert "skipping incomplete" not in caplog.text


def test_flipped_bytes_do_not_load(tmp_path):
  with _open(tmp_path) as checkpointer:
    state = {"w": jnp.arange(4096, dtype=jnp.float32)}
    checkpointer.save(1, state, {}, wait=True)
    for path in tmp_path.rglob("d/*"):
      if path.is_file():
        data = bytearray(path.read_bytes())
        for i in range(len(data) // 4, 3 * len(data) // 4):
          data[i] ^= 0xFF
        path.write_bytes(data)
    with pytest.raises(errors.CheckpointError, match="is damaged"):
      checkpointer.restore({"w": np.empty(4096, np.float32)})


def test_an_unknown_format_is_skipped(tmp_path):
  _fill(tmp_path, [None, None])
  file = tmp_path / "step_00000002" / "checkpoint.json"
  info = json.loads(file.read_text()) | {"format": 2}
  file.write_text(json.dumps(info))
  assert _open(tmp_path).all_steps() == [1]


def test_keep_last_below_one_is_refused(tmp_path):
  with pytest.raises(ValueError, match="keep_last=0"):
    _open(tmp_path, keep_last=0)
