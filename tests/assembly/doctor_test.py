"""The doctor: one line per part, keys never shown, failures counted."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from agentflow_jax.assembly import doctor
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.engines import answer_store, remote
from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.testing import tiny_model
from agentflow_jax.tools import user_tools
from agentflow_jax.training import checkpointing, model_files, model_loading
from agentflow_jax.training import run_dir as run_dir_lib

_ROOT = pathlib.Path(__file__).parents[2]


def _findings(config):
  async def all_of_them():
    return [finding async for finding in doctor.examine(config)]

  return {f.what: f for f in asyncio.run(all_of_them())}


def test_everything_of_a_config_is_tried():
  config = config_lib.Config()
  config.tools.enabled = ("python_coder", "wikipedia_search")
  config.engines.executor = config.engines.tool = "scripted:worldfacts"
  found = _findings(config)
  assert all(finding.ok for finding in found.values()), found
  assert "rules" in found["engine executor (scripted:worldfacts)"].detail
  assert {"python", "jax", "memory", "tool python_coder"} <= found.keys()
  assert "ms" in found["tool wikipedia_search"].detail
  assert all("\n" not in str(finding) for finding in found.values())


def test_failures_are_findings_and_hide_nothing(monkeypatch):
  monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
  config = config_lib.Config()
  config.tools.enabled = ("google_search", "no_such_tool", "python_coder")
  found = _findings(config)
  assert not found["tool google_search"].ok
  assert not found["tool no_such_tool"].ok
  assert found["tool python_coder"].ok
  assert "stand-in" in found["tool python_coder"].detail
  assert not found["key GOOGLE_API_KEY"].ok


def test_the_sandbox_has_a_line_of_its_own(tmp_path, monkeypatch):
  config = config_lib.Config()
  config.tools.enabled = ("python_coder", "base_generator")
  assert "monty ran a program in" in _findings(config)["sandbox"].detail

  bwrap = tmp_path / "bwrap"
  bwrap.write_text("#!/bin/sh\necho 'no new namespace' >&2; exit 1\n")
  bwrap.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  config.tools.python_sandbox = "bubblewrap"
  found = _findings(config)
  failed = {what for what, finding in found.items() if not finding.ok}
  assert failed == {"sandbox", "tool python_coder"}
  assert "does not work (the jail did not start: no new" in (
    found["sandbox"].detail
  )
  # Whoever does not use it needs none.
  config.rollout.replay = "replay"
  assert "a replay runs no program" in _findings(config)["sandbox"].detail
  config.rollout.replay = "off"
  config.tools.enabled = ("base_generator",)
  found = _findings(config)
  assert all(finding.ok for finding in found.values())
  assert "bubblewrap, not used" in found["sandbox"].detail


def test_an_engines_files_are_opened_and_nothing_is_put_there(
  tmp_path, monkeypatch
):
  """A check that is recorded would be part of the run it was made for."""

  async def generate(*unused):
    return engine_lib.Completion(
      text="4", finish_reason=engine_lib.FinishReason.STOP
    )

  monkeypatch.setattr(remote.RemoteEngine, "generate", generate)
  config = config_lib.Config()
  config.tools.enabled = ()
  config.engines.judge = "compatible:echo"
  config.engines.judge_options.base_url = "http://127.0.0.1:9/v1"
  config.engines.cache_dir = str(tmp_path / "cache")
  config.rollout.replay = "record"
  config.rollout.replay_dir = str(tmp_path / "record")
  assert _findings(config)["engine judge (compatible:echo)"].ok
  for name in ("cache", "record"):
    (path,) = (tmp_path / name).glob("*.sqlite")
    with contextlib.closing(answer_store.AnswerStore(path)) as store:
      assert len(store) == 0
  (tmp_path / "file").write_text("")
  config.engines.cache_dir = str(tmp_path / "file")
  assert not _findings(config)["engine judge (compatible:echo)"].ok


def test_a_tool_of_the_users_is_called_if_it_has_an_example(monkeypatch):
  monkeypatch.setattr(user_tools, "_decorated", {})

  @user_tools.tool(example={"text": "a b"})
  def counted(text: str) -> int:
    """Counts words."""
    return len(text.split())

  @user_tools.tool
  def silent(text: str) -> int:
    """Counts words."""
    return len(text.split())

  @user_tools.tool(example={"text": 3})
  def wrong(text: str) -> int:
    """Counts words."""
    return len(text.split())

  config = config_lib.Config()
  config.tools.enabled = ("counted", "silent", "wrong")
  found = _findings(config)
  assert "answered in" in found["tool counted"].detail
  assert found["tool silent"].ok
  assert "not called" in found["tool silent"].detail
  assert not found["tool wrong"].ok


def test_keys_are_present_or_missing_and_never_shown(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "canary-3c8a9f77")
  config = config_lib.Config()
  config.tools.enabled = ("google_search",)
  config.tools.google_backend = "gemini"
  config.tools.google_url = "http://127.0.0.1:9"
  found = _findings(config)
  assert found["key GOOGLE_API_KEY"].detail == "present"
  assert not found["tool google_search"].ok
  assert all("canary" not in str(finding) for finding in found.values())


def test_the_script_fails_if_anything_does():
  done = subprocess.run(
    [sys.executable, "launch/doctor.py", "--config.tools.enabled=no_such_tool"],
    cwd=_ROOT,
    env={**os.environ, "GOOGLE_API_KEY": "canary-3c8a9f77"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1, done.stderr
  lines = done.stdout.splitlines()
  assert [line[:4] for line in lines[:-1]].count("FAIL") == 1
  assert lines[-1] == "1 failed"
  assert all(line[:4] in ("ok  ", "FAIL") for line in lines[:-1])
  assert "canary" not in done.stdout + done.stderr


_VOCAB = 300


@pytest.fixture(scope="module")
def hf_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("hf")
  tokenizer = tokenizer_training.train_tokenizer(
    ["Question: 2 + 2 = the capital of Laos " * 9], _VOCAB, path / "tokenizer"
  )
  arch = tiny_model.tiny_architecture(vocab_size=_VOCAB)
  exporting.export_checkpoint(
    path / "model", arch, tiny_model.tiny_params(arch), tokenizer=tokenizer
  )
  return path / "model"


def _of_a_model(checkpoint):
  config = config_lib.Config()
  config.model.checkpoint = str(checkpoint)
  config.tools.enabled = ()
  config.engines.executor = config.engines.tool = "frozen"
  config.engines.verifier = config.engines.generator = "scripted:worldfacts"
  config.sampler.max_prompt_tokens = 256
  config.sampler.max_completion_tokens = 8
  config.sampler.prefill_chunk_tokens = 32
  return config


def _said_of_the_policy(config):
  found = _findings(config)
  policy, frozen = (
    found["engine planner (trainable)"],
    found["engine executor (frozen)"],
  )
  assert (policy.ok, policy.detail) == (frozen.ok, frozen.detail)
  assert "\n" not in policy.detail
  return policy.ok, policy.detail


def test_a_model_is_loaded_and_says_a_token(hf_dir, monkeypatch):
  loads = []
  load = model_loading.load_model
  monkeypatch.setattr(
    model_loading,
    "load_model",
    lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs),
  )
  ok, said = _said_of_the_policy(_of_a_model(hf_dir))
  assert ok
  assert "sampled one token in" in said
  assert "0.0M parameters on" in said
  assert loads == [(str(hf_dir),)]  # once, for both
  ok, said = _said_of_the_policy(_of_a_model(""))
  assert (ok, said) == (True, "a model of the run, loaded when it starts")


def test_a_run_and_its_start_model_are_models(tmp_path):
  arch = tiny_model.tiny_architecture(vocab_size=_VOCAB)
  params = tiny_model.tiny_params(arch)
  tokenizer = tokenizer_training.train_tokenizer(
    ["the capital of Laos " * 9], _VOCAB, tmp_path / "tokenizer"
  )
  path = tmp_path / "run"
  with run_dir_lib.RunDir.open(path, config_lib.Config()) as run:
    model_loading.save_model(run.base, arch, params, tokenizer)
    model_files.save_description(run.model, arch, tokenizer)
    ok, said = _said_of_the_policy(_of_a_model(path))
    assert (ok, "no complete checkpoint" in said) == (False, True), said
    with checkpointing.Checkpointer(
      run.checkpoints, keep_last=1, keep_best=True
    ) as saved:
      saved.save(1, {"params": params}, {}, wait=True)
    for model in (path, run.base):
      ok, said = _said_of_the_policy(_of_a_model(model))
      assert (ok, "sampled one token" in said) == (True, True), said


def _truncated(path):
  file = path / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-1000])


def _small_vocabulary(path):
  """The model knows fewer ids than its tokenizer writes."""
  arch = tiny_model.tiny_architecture(vocab_size=20)
  params = tiny_model.tiny_params(arch)
  exporting.export_checkpoint(path / "small", arch, params)
  for name in ("config.json", "model.safetensors"):
    (path / "small" / name).replace(path / name)


def _not_numbers(path):
  tensors = safetensors.numpy.load_file(path / "model.safetensors")
  tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.nan
  safetensors.numpy.save_file(tensors, path / "model.safetensors")


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (shutil.rmtree, "is no model"),
    (
      lambda path: (path / "model.safetensors").unlink(),
      "has neither",
    ),
    (lambda path: (path / "tokenizer.json").unlink(), "no such file"),
    (lambda path: (path / "config.json").write_text("{"), "config.json"),
    (_truncated, "model.safetensors"),
    (_small_vocabulary, "prompt ids must be in"),
    (_not_numbers, "its weights give no probabilities"),
  ],
)
def test_what_is_wrong_with_a_checkpoint_is_one_line(
  hf_dir, tmp_path, damage, reason
):
  copy = tmp_path / "model"
  shutil.copytree(hf_dir, copy)
  damage(copy)
  ok, said = _said_of_the_policy(_of_a_model(copy))
  assert not ok
  assert str(copy) in said
  assert reason in said


def test_a_config_that_does_not_fit_the_model_is_found(hf_dir):
  config = _of_a_model(hf_dir)
  config.sampler.max_prompt_tokens = 4096
  ok, said = _said_of_the_policy(config)
  assert not ok
  assert "512" in said


def test_a_full_device_is_a_finding(hf_dir, monkeypatch):
  def full(*args, **kwargs):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: full\n" * 999)

  monkeypatch.setattr(model_loading, "load_model", full)
  ok, said = _said_of_the_policy(_of_a_model(hf_dir))
  assert not ok
  assert f"{hf_dir}: RESOURCE_EXHAUSTED: full" in said
  assert len(said) < 500
