import jax
import numpy as np
import pytest

from agentflow_jax.batching import device_batch, packing
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import training_sample as training_sample_lib
from agentflow_jax.models import mesh_axes, sharding


def _sample(prompt, completion, group=0):
  return training_sample_lib.TrainingSample(
    prompt_ids=np.array(prompt, np.int32),
    completion_ids=np.array(completion, np.int32),
    behavior_logprobs=np.full(len(completion), -0.5, np.float32),
    advantage=2.0,
    weight=0.25,
    group=group,
    trajectory=0,
    turn=0,
  )


def _rows(count, tokens=4):
  """Rows that cannot share one: each fills `tokens` tokens exactly."""
  samples = [_sample([n] * (tokens - 1), [n], group=n) for n in range(count)]
  return packing.pack_samples(samples, row_tokens=tokens).rows


def test_hand_made_batch():
  (row,) = packing.pack_samples([_sample([5, 6], [7, 8])], row_tokens=5).rows
  (batch,) = device_batch.to_micro_batches(
    [row], row_tokens=5, batch_rows=2, entries=3
  )
  expected = {
    "tokens_BT": [[5, 6, 7, 8, 0], [0] * 5],
    "positions_BT": [[0, 1, 2, 3, 0], [0] * 5],
    # Padding sees only itself, so no softmax is over an empty set.
    "subtree_end_BT": [[4, 4, 4, 4, 5], [1, 2, 3, 4, 5]],
    "parent_BE": [[1, 2, 0], [0] * 3],
    "target_BE": [[7, 8, 0], [0] * 3],
    "behavior_logprob_BE": [[-0.5, -0.5, 0], [0] * 3],
    "advantage_BE": [[2, 2, 0], [0] * 3],
    "weight_BE": [[0.25, 0.25, 0], [0] * 3],
    "sample_BE": [[0, 0, -1], [-1] * 3],
  }
  for name, values in expected.items():
    array = getattr(batch, name)
    np.testing.assert_array_equal(array, np.array(values, array.dtype), name)
    is_float = name in ("behavior_logprob_BE", "advantage_BE", "weight_BE")
    assert array.dtype == (np.float32 if is_float else np.int32)


@pytest.mark.parametrize(
  ("entries", "bucket"),
  [
    (0, 64),
    (64, 64),
    (65, 128),
    (129, 256),
    (257, 384),
    (385, 512),
    (1025, 1536),
  ],
)
def test_entry_buckets(entries, bucket):
  rows = packing.pack_samples(
    [_sample([1], [2] * entries)], row_tokens=entries + 1
  ).rows
  assert device_batch.entry_bucket(rows) == bucket


def test_micro_batches_keep_every_row_once_and_share_one_shape():
  rows = _rows(7)
  batches = device_batch.to_micro_batches(rows, row_tokens=4, batch_rows=3)
  assert len(batches) == 3
  stacked = np.concatenate([b.tokens_BT for b in batches])
  np.testing.assert_array_equal(stacked[:7], [r.tokens_T for r in rows])
  assert not np.concatenate([b.weight_BE for b in batches])[7:].any()
  assert len({jax.tree.map(np.shape, b).tokens_BT for b in batches}) == 1


def test_rows_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="7 rows with up to 1 entries"):
    device_batch.to_micro_batches(
      _rows(7), row_tokens=4, batch_rows=3, batches=2
    )
  with pytest.raises(ValueError, match="with 0 entries"):
    device_batch.to_micro_batches(
      _rows(1), row_tokens=4, batch_rows=3, entries=0
    )


def test_rows_split_over_the_data_axes_of_the_model_s_mesh():
  assert device_batch.DATA_AXES == mesh_axes.BATCH_AXES
  mesh = sharding.make_mesh(2, 2, 2)
  assert device_batch.local_batch_rows(mesh, 3) == 12
  (batch,) = device_batch.to_micro_batches(
    _rows(12), row_tokens=4, batch_rows=12
  )
  placed = device_batch.place(batch, mesh)
  for host, array in zip(
    jax.tree.leaves(batch), jax.tree.leaves(placed), strict=True
  ):
    np.testing.assert_array_equal(array, host)
    assert array.sharding.shard_shape(array.shape)[0] == 3
    assert array.dtype == host.dtype


def test_one_call_from_samples_to_the_mesh():
  config = config_lib.LearnerConfig(row_tokens=4, micro_batch_rows=2)
  mesh = sharding.make_mesh(2, 1, 1, devices=jax.devices()[:2])
  samples = [_sample([n] * 3, [n]) for n in range(5)]
  made = device_batch.make_micro_batches(samples, config, mesh)
  assert len(made.batches) == 2
  assert made.batches[0].tokens_BT.shape == (4, 4)
  assert made.metrics["rows"] == 5
  assert made.metrics["padding_rows"] == 3
  assert made.metrics["micro_batches"] == 2
  trained = sum(int((b.sample_BE >= 0).sum()) for b in made.batches)
  assert trained == 5


def test_packing_strategy_reaches_the_packer():
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  samples = [_sample([1, 2, 3], [n]) for n in range(2)]
  computed = {
    packing_name: device_batch.make_micro_batches(
      samples,
      config_lib.LearnerConfig(row_tokens=8, packing=packing_name),
      mesh,
    ).metrics["computed_tokens"]
    for packing_name in packing.STRATEGIES
  }
  assert computed == {"tree": 5, "rows": 8}


def test_nothing_to_learn_is_no_micro_batch():
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  made = device_batch.make_micro_batches([], config_lib.LearnerConfig(), mesh)
  assert made.batches == ()


def test_a_short_host_runs_as_many_batches_of_the_same_shape():
  config = config_lib.LearnerConfig(row_tokens=8, micro_batch_rows=1)
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  made = device_batch.make_micro_batches(
    [_sample([1], [2])],
    config,
    mesh,
    max_over_hosts=lambda sizes: np.maximum(sizes, [3, 96]),
  )
  assert [b.weight_BE.shape for b in made.batches] == [(1, 96)] * 3
  assert [float(b.weight_BE.sum()) for b in made.batches] == [0.25, 0, 0]
