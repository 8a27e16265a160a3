"""The train suite end to end on a tiny model, with a fake peer."""

import json
import pathlib

import numpy as np
import pytest

from agentflow_jax.batching import packing
from agentflow_jax.benchmarks import (
  peers,
  suites,
  train_suite,
  train_workload,
  workloads,
)
from agentflow_jax.core import errors

_MODEL = "worldfacts_planner"


def _small(tasks, turns):
  return workloads.Shape(
    name="small",
    tasks=tasks,
    members=4,
    turns=turns,
    system_tokens=8,
    task_tokens=8,
    memory_tokens=8,
    completion_tokens=(2, 5),
  )


@pytest.fixture
def small_work(monkeypatch):
  monkeypatch.setattr(train_workload, "trajectories", _small)
  monkeypatch.setitem(train_suite.MODELS, _MODEL, 2)
  monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent))
  monkeypatch.setitem(peers.TRAIN_PEERS, "torch", ("fake_trainer", "json"))


def test_samples_are_the_calls_of_the_rollout_workload():
  shape = _small(2, 3)
  found = train_workload.samples(shape, 100, 5)
  calls = [call for turn in workloads.calls(shape, 100, 5) for call in turn]
  assert [len(s.completion_ids) for s in found] == [
    call.completion_tokens for call in calls
  ]
  for sample, call in zip(found, calls, strict=True):
    np.testing.assert_array_equal(sample.prompt_ids, call.prompt)
  total = sum(s.weight * len(s.completion_ids) for s in found)
  assert total == pytest.approx(1)


def test_rows_hold_every_trained_token_once():
  found = train_workload.samples(_small(2, 3), 100, 5)
  batches = train_workload.row_batches(found, 5)
  trained = np.concatenate(
    [rows.tokens_BT[rows.completion_BT] for rows in batches]
  )
  want = np.concatenate([s.completion_ids for s in found])
  np.testing.assert_array_equal(np.sort(trained), np.sort(want))
  assert sum(len(rows.weight_B) for rows in batches) == len(found)
  assert all(rows.tokens_BT[:, -1].any() for rows in batches)


def test_trees_fill_a_row_per_device():
  shape = _small(4, 3)
  config = train_suite._config(shape, 2)
  found = train_workload.samples(shape, 4096, 9)
  packed = packing.pack_samples(found, row_tokens=config.row_tokens)
  assert len(packed.rows) <= 2
  assert packed.metrics["padding_tokens"] < 2 * 64


def test_the_bars_of_token_counts():
  counted = train_suite._counts()
  assert counted["rows_over_tree_3turns"] >= 4
  assert counted["rows_over_tree_10turns"] >= 5
  assert counted["computed_over_distinct_3turns"] <= 1.05
  assert counted["computed_over_distinct_10turns"] <= 1.05


def test_the_suite_reports_what_it_must(small_work):
  found = suites.SUITES["train"](
    suites.Options(models=[_MODEL], peers=["torch"], rounds=1)
  )
  *_, last = found.text().splitlines()
  figures = json.loads(last)
  assert set(figures) >= {
    "suite",
    "computed_over_distinct",
    "rows_over_tree_3turns",
    "rows_over_tree_10turns",
    "step_ratio_torch",
    "step_ratio_tunix",
    "peak_bytes_ratio_torch",
    "flops_fraction",
    "max_rel_grad_error",
  }
  assert figures["step_ratio_torch"] > 0
  assert figures["step_ratio_tunix"] is None
  assert figures["max_rel_grad_error"] < 1e-5
  assert "batch=4 pause_s=0.0" in found.text()


def test_a_step_that_learns_nothing_is_an_error(small_work, monkeypatch):
  monkeypatch.setenv("FAKE_TRAINER_NORM", "0")
  with pytest.raises(errors.EngineError, match="'torch' ended with code 1"):
    peers.Peer("torch", _MODEL, _small(1, 1), peers.TRAIN_PEERS)


def test_a_run_without_rollouts_is_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match="no run directory"):
    train_suite.run(models=[], peer_names=[], rounds=1, run_dir=str(tmp_path))
