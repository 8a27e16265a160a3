"""launch/experiment.py as a program, and one experiment that really runs."""

import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import fake_run
import pytest

from agentflow_jax.experiments import table
from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.testing import tiny_model

_ROOT = pathlib.Path(__file__).parents[2]
# Everything as small as it gets; nothing is learnt.
_TINY = {
  "agent.max_turns": 2,
  "agent.evaluation_max_turns": 2,
  "agent.memory_tokens": 200,
  "sampler.max_prompt_tokens": 384,
  "sampler.max_completion_tokens": 32,
  "sampler.slots": 4,
  "rollout.tasks": 2,
  "rollout.group_size": 3,
  "learner.mini_batch_trajectories": 0,
  "learner.epochs": 1,
  "learner.warmup_steps": 0,
  "learner.row_tokens": 448,
  "learner.micro_batch_rows": 2,
  "learner.loss_chunk_tokens": 512,
  "warm_start.copy_steps": 1,
  "warm_start.copy_batch_tokens": 256,
  "warm_start.traces": 16,
  "warm_start.imitation_steps": 2,
  "warm_start.imitation_rows": 4,
  "training.iterations": 2,
  "tasks.evaluation_questions": 6,
}


def _experiment(*arguments, cwd=_ROOT):
  return subprocess.run(
    [sys.executable, str(_ROOT / "launch" / "experiment.py"), *arguments],
    cwd=cwd,
    env=os.environ
    | {
      "PYTHONPATH": str(_ROOT),
      # Fewer devices than the tests have: slots are shared out among them.
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    },
    capture_output=True,
    text=True,
    check=False,
  )


def test_list_says_what_there_is():
  ran = _experiment("--list")
  assert ran.returncode == 0
  for experiment in table.EXPERIMENTS.values():
    assert experiment.name in ran.stdout
    assert experiment.question in ran.stdout


@pytest.mark.parametrize(
  "arguments, words",
  [
    (["--name=trainings"], "known are training, flows, turn_budget"),
    (["--name=training", "--seeds=0,0"], "each once"),
    (["--name=training", "--seeds=a"], "numbers from 0"),
    (["--name=training", "--config.learner.lrr=1"], "nearest: 'learner.lr'"),
    (["--name=training", "--checkpoints=a/x,b/x"], "one name"),
    (["--name=training", "--from=nowhere"], "no run directory"),
  ],
)
def test_mistakes_are_one_line(arguments, words):
  ran = _experiment(*arguments)
  assert ran.returncode == 2
  assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
  assert words in ran.stderr


def test_a_dry_run_only_prints(tmp_path):
  ran = _experiment("--name=training", "--dry_run", "--seeds=5", cwd=tmp_path)
  assert ran.returncode == 0, ran.stderr
  commands = ran.stdout.splitlines()
  assert len(commands) == 6
  assert all("launch/" in command for command in commands)
  assert "--config.run.seed=5" in commands[0]
  assert not list(tmp_path.iterdir())


def test_existing_runs_are_read(tmp_path):
  fake_run.write_run(tmp_path / "run", 0.75, before=0.25)
  ran = _experiment(
    "--name=training", f"--from={tmp_path / 'run'}", f"--out={tmp_path / 'o'}"
  )
  assert ran.returncode == 0, ran.stderr
  assert "| Flow-GRPO | 1 | 75.0% |" in ran.stdout
  assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
    *("figure.svg", "result.json", "result.md"),
  ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_experiment_from_nothing_to_its_figure(tmp_path):
  arguments = [
    "--name=training",
    "--seeds=0",
    f"--out={tmp_path / 'out'}",
    *(f"--config.{key}={value}" for key, value in _TINY.items()),
  ]
  ran = _experiment(*arguments)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  result = json.loads((tmp_path / "out" / "result.json").read_text())
  assert [one["name"] for one in result["conditions"]] == [
    *("untrained", "sft", "flow_grpo"),
  ]
  untrained, sft, trained = result["conditions"]
  for one in result["conditions"]:
    assert one["runs"][0]["questions"] == 6
    assert one["questions_interval"] is not None
  assert "sampled_tokens" not in untrained["means"]
  assert trained["means"]["sampled_tokens"]["mean"] > 0
  # Two steps of a random network: what matters is that all were evaluated.
  assert sft["means"]["accuracy"]["count"] == 1
  ElementTree.parse(tmp_path / "out" / "figure.svg")

  again = _experiment(*arguments)
  assert again.returncode == 0
  assert again.stdout.count("finished before") == 6
  assert "started" not in again.stdout


# Modules that are models: the whole prompt of each has to fit, byte by byte.
_REAL = {
  "agent.max_turns": 1,
  "agent.evaluation_max_turns": 1,
  "agent.memory_tokens": 200,
  "sampler.max_prompt_tokens": 6144,
  "sampler.max_completion_tokens": 16,
  "sampler.slots": 4,
  "sampler.prefill_chunk_tokens": 512,
  "engines.frozen_max_tokens": 16,
  "rollout.tasks": 2,
  "rollout.group_size": 2,
  "learner.mini_batch_trajectories": 0,
  "learner.warmup_steps": 0,
  "learner.row_tokens": 6400,
  "training.iterations": 1,
  "tasks.evaluation_questions": 3,
  "model.dtype": "float32",
  "model.param_dtype": "float32",
}


def _hf_directory(path, layers):
  tokenizer = tokenizer_training.train_tokenizer(
    ["Question: the capital of Laos " * 9], 300, path / "tokenizer"
  )
  arch = tiny_model.tiny_architecture(
    vocab_size=300, num_layers=layers, max_positions=8192
  )
  exporting.export_checkpoint(
    path / "model", arch, tiny_model.tiny_params(arch), tokenizer=tokenizer
  )
  return (path / "model").rename(path / f"Layers-{layers}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_models_of_ones_own_are_compared(tmp_path):
  """Hugging Face directories, a Qwen config, frozen modules that are models."""
  models = [_hf_directory(tmp_path / str(n), n) for n in (1, 2)]
  ran = _experiment(
    "--name=planner_size",
    f"--config={_ROOT / 'configs/flow_grpo_qwen2_5_0_5b.py'}",
    f"--checkpoints={models[0]},{models[1]}",
    "--seeds=0",
    f"--out={tmp_path / 'out'}",
    *(f"--config.{key}={value}" for key, value in _REAL.items()),
  )
  assert ran.returncode == 0, ran.stdout + ran.stderr
  result = json.loads((tmp_path / "out" / "result.json").read_text())
  assert [one["label"] for one in result["conditions"]] == [
    *("Layers-1", "Layers-2"),
  ]
  for one in result["conditions"]:
    assert one["runs"][0]["questions"] == 3
    assert one["means"]["gain"]["count"] == 1
    assert one["means"]["sampled_tokens"]["mean"] > 0
    config = pathlib.Path(one["runs"][0]["run_dir"], "config.json").read_text()
    assert one["label"] in json.loads(config)["model"]["checkpoint"]
