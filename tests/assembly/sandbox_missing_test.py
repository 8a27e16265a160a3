"""A sandbox that is installed and does not work: no run starts."""

import asyncio
import os
import types

import pytest

from agentflow_jax.assembly import evaluator, samplers, sandboxes, trainer
from agentflow_jax.assembly import solver as solver_lib
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors, providers
from agentflow_jax.core import task as task_lib
from agentflow_jax.experiments import demonstrating
from agentflow_jax.tools import user_tools
from agentflow_jax.training import progress, stop_signal
from agentflow_jax.training import run_dir as run_dir_lib

_REFUSED = "sandbox does not work .*No permissions to create new namespace"


@pytest.fixture(autouse=True)
def broken_bwrap(tmp_path, monkeypatch):
  """As on a kernel that forbids user namespaces."""
  folder = tmp_path / "bin"
  folder.mkdir()
  path = folder / "bwrap"
  path.write_text(
    "#!/bin/sh\n"
    "echo 'bwrap: No permissions to create new namespace' >&2; exit 1\n"
  )
  path.chmod(0o755)
  monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

  def compiled(*unused):
    raise AssertionError("a sampler was built first")

  monkeypatch.setattr(samplers, "build_sampler", compiled)

  def open_world(config, data_dir):
    """No questions: it takes seconds to write those of worldfacts."""
    return world_lib.World(
      config=config, train_tasks=[], evaluation_tasks=[], index_dir=data_dir
    )

  monkeypatch.setattr(world_lib, "open_world", open_world)


def _config() -> config_lib.Config:
  config = config_lib.Config()
  config.model.preset = "worldfacts_planner"
  config.warm_start.enabled = True
  config.tools.enabled = ("base_generator", "python_coder")
  config.tools.python_sandbox = "bubblewrap"
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, providers.SCRIPTED_WORLDFACTS)
  return config


def _no_model(*unused):
  tokenizer = types.SimpleNamespace(encode=lambda text: [])
  return types.SimpleNamespace(arch=None, params=None, tokenizer=tokenizer)


def _train(config, path):
  with (
    stop_signal.StopSignal() as stop,
    run_dir_lib.RunDir.open(path, config) as opened,
  ):
    asyncio.run(trainer.train(config, opened, progress.Progress(), stop))


def _refused(run, *arguments):
  with pytest.raises(errors.UserError, match=_REFUSED) as caught:
    run(*arguments)
  assert "\n" not in str(caught.value)


def test_no_warm_start(tmp_path):
  _refused(_train, _config(), tmp_path / "run")
  assert not (tmp_path / "run" / "base").exists()


def test_no_training(tmp_path, monkeypatch):
  """From a checkpoint, where there is no warm start that would find out."""

  async def start_model(*unused):
    return _no_model()

  monkeypatch.setattr(trainer.start, "start_model", start_model)
  monkeypatch.setattr(trainer.start, "start_policy", _no_model)
  monkeypatch.setattr(trainer.model_files, "save_description", _no_model)
  _refused(_train, _config(), tmp_path / "run")


def test_no_answers(monkeypatch):
  monkeypatch.setattr(
    solver_lib,
    "_load_models",
    lambda *unused: samplers.Models(policy=_no_model(), frozen=_no_model()),
  )

  async def solve():
    async with solver_lib.open_solver(_config(), "a/model"):
      pass

  _refused(asyncio.run, solve())


@pytest.mark.parametrize("checkpoint", ["", "a/model"])
def test_no_evaluation(tmp_path, monkeypatch, checkpoint):
  monkeypatch.setattr(
    solver_lib,
    "_load_models",
    lambda *unused: samplers.Models(policy=_no_model(), frozen=_no_model()),
  )
  config = _config()
  if not checkpoint:
    config.engines.planner = providers.SCRIPTED_WORLDFACTS
  request = evaluator.Request(
    benchmarks={"none": []}, out=tmp_path, checkpoint=checkpoint
  )
  _refused(asyncio.run, evaluator.evaluate(config, request))


def _demonstrate(config, out):
  work = demonstrating.record(config, out, questions=1, data_dir=out.parent)
  asyncio.run(work)


@pytest.mark.parametrize("teacher", ["trainable", "compatible:echo"])
def test_no_demonstrations(tmp_path, monkeypatch, teacher):
  """Refused before there is a world to ask about."""

  def opened(*unused):
    raise AssertionError("the world was opened first")

  monkeypatch.setattr(world_lib, "open_world", opened)
  config = _config()
  config.engines.planner = teacher
  _refused(_demonstrate, config, tmp_path / "out.jsonl")
  assert not (tmp_path / "out.jsonl").exists()


def test_no_demonstrations_with_any_tool_that_does_not_work(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(user_tools, "_decorated", {})

  @user_tools.tool(example={"text": "a"})
  def broken(text: str) -> str:
    """Fails."""
    raise TypeError(f"no {text}")

  def open_world(config, data_dir):
    task = task_lib.Task(id="a", question="?", answers=("b",), data_source="c")
    return world_lib.World(
      config=config, train_tasks=[task], evaluation_tasks=[], index_dir=data_dir
    )

  monkeypatch.setattr(world_lib, "open_world", open_world)
  config = _config()
  config.tools.enabled = ("base_generator", "broken")
  with pytest.raises(errors.ToolHostError, match="TypeError: no a"):
    _demonstrate(config, tmp_path / "out.jsonl")
  assert not (tmp_path / "out.jsonl").exists()


def test_a_replay_runs_no_program_and_needs_no_sandbox():
  config = _config()
  config.rollout.replay = "replay"
  asyncio.run(sandboxes.check(config))
