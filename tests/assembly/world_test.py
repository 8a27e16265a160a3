"""What a run opens before there is a policy, and the model it starts from."""

import asyncio
import dataclasses

import jax
import numpy as np
import pytest

from agentflow_jax.assembly import start, world
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.models import sharding
from agentflow_jax.testing import tiny_model
from agentflow_jax.tools import bm25_index
from agentflow_jax.training import model_loading
from agentflow_jax.training import run_dir as run_dir_lib

_ARCH = tiny_model.tiny_architecture(vocab_size=300)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def _open(directory, /, **tasks) -> world.World:
  config = config_lib.Config()
  for name, value in tasks.items():
    assert hasattr(config.tasks, name)
    setattr(config.tasks, name, value)
  return world.open_world(config, directory)


def test_train_and_held_out_questions_are_different_ones(data_dir):
  opened = _open(data_dir)
  train = {opened.train_tasks[i].id for i in range(len(opened.train_tasks))}
  held_out = {task.id for task in opened.evaluation_tasks}
  assert len(held_out) >= 240
  assert len(train) > len(held_out) and not train & held_out
  tasks = [*opened.evaluation_tasks]
  assert opened.scorers >= {task.scorer for task in tasks}


def test_the_first_questions_are_those_of_all(data_dir):
  every, some = _open(data_dir), _open(data_dir, evaluation_questions=7)
  assert some.evaluation_tasks == every.evaluation_tasks[:7]
  more = _open(data_dir, evaluation_questions=10**6)
  assert more.evaluation_tasks == every.evaluation_tasks


def test_the_index_is_built_once_and_can_be_searched(data_dir, monkeypatch):
  opened = _open(data_dir)
  assert opened.index_dir.parent == data_dir
  assert bm25_index.Bm25Index.open(opened.index_dir).search("capital", 1)

  def build(*unused):
    raise AssertionError("built again")

  monkeypatch.setattr(bm25_index, "build", build)
  assert _open(data_dir).index_dir == opened.index_dir


def test_a_data_dir_of_the_users_own_is_used(data_dir, tmp_path):
  opened = _open(tmp_path / "unused", data_dir=str(data_dir))
  assert opened.index_dir.parent == data_dir
  assert not (tmp_path / "unused").exists()


def test_an_index_of_the_users_own_is_used(data_dir):
  config = config_lib.Config()
  config.tools.search_index_dir = "elsewhere"
  assert str(world.open_world(config, data_dir).index_dir) == "elsewhere"


def _start(opened, run_dir, reports=None) -> model_loading.LoadedModel:
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  report = [].append if reports is None else reports.append
  return asyncio.run(start.start_model(opened, run_dir, mesh, report))


@pytest.fixture
def base(tmp_path):
  """A run directory whose warm start is done."""
  run_dir = run_dir_lib.RunDir(tmp_path / "run", resumed=True, lock=None)
  tokenizer = tokenizer_training.train_tokenizer(
    ["the capital of Laos is Vientiane"] * 20, 300, tmp_path / "tokenizer"
  )
  model_loading.save_model(
    run_dir.base, _ARCH, tiny_model.tiny_params(_ARCH), tokenizer
  )
  return run_dir


def _same_params(found, expected) -> None:
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_finished_warm_start_is_not_repeated(data_dir, base):
  opened = _open(data_dir)
  opened.config.warm_start.enabled = True
  reports = []
  model = _start(opened, base, reports)
  assert reports == []
  _same_params(model.params, tiny_model.tiny_params(_ARCH))


def test_a_checkpoint_is_loaded_as_the_config_says(data_dir, base, tmp_path):
  opened = _open(data_dir)
  opened.config.model.checkpoint = str(base.base)
  opened.config.model.dtype = "bfloat16"
  opened.config.model.remat = "block"
  empty = run_dir_lib.RunDir(tmp_path / "empty", resumed=False, lock=None)
  model = _start(opened, empty)
  assert model.arch == dataclasses.replace(
    _ARCH, dtype="bfloat16", remat="block"
  )
  _same_params(model.params, tiny_model.tiny_params(_ARCH))
  assert not empty.base.exists()


def test_nothing_to_start_from_is_named(data_dir, tmp_path):
  run_dir = run_dir_lib.RunDir(tmp_path, resumed=False, lock=None)
  with pytest.raises(errors.ConfigError) as caught:
    _start(_open(data_dir), run_dir)
  for name in ("model.checkpoint", "warm_start.enabled"):
    assert name in str(caught.value)
