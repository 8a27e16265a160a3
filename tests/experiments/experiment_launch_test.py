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
