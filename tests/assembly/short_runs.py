"""Real training runs of a few seconds that share all that is constant."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[2]
_STRUCK = pathlib.Path(__file__).with_name("struck_train.py")
ITERATIONS = 4
FLAGS = {
  "model.preset": "worldfacts_planner_small",
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
  "learner.warmup_steps": 1,
  "learner.train_embeddings": "true",
  "learner.row_tokens": 448,
  "learner.micro_batch_rows": 2,
  "learner.loss_chunk_tokens": 512,
  "warm_start.copy_steps": 1,
  "warm_start.copy_batch_tokens": 256,
  "warm_start.traces": 16,
  "warm_start.imitation_steps": 2,
  "warm_start.imitation_rows": 4,
  "training.iterations": ITERATIONS,
  "training.checkpoint_every": 1,
  "training.evaluate_every": 2,
  "training.tensorboard": "false",
  "training.export_hf": "false",
  "training.write_report": "false",
  "tasks.evaluation_questions": 6,
}


class Program:
  """Starts the program in run directories that share all that is constant."""

  def __init__(self, root: pathlib.Path):
    self.root = root

  def start(
    self, run_dir: pathlib.Path, point="none", strike=signal.SIGKILL, **flags
  ) -> subprocess.Popen:
    values = FLAGS | {
      "run.run_dir": run_dir,
      "run.compile_cache_dir": self.root / "compile_cache",
      "tasks.data_dir": self.root / "data",
    }
    values |= {name.replace("__", "."): v for name, v in flags.items()}
    return subprocess.Popen(
      [sys.executable, str(_STRUCK), point, strike.name]
      + ["--config=configs/quickstart.py"]
      + [f"--config.{name}={value}" for name, value in values.items()],
      cwd=_ROOT,
      env=os.environ
      | {
        "AGENTFLOW_HOST_SETTINGS": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *args, **kwargs) -> tuple[int, str, str]:
    """(exit status, stdout, stderr)."""
    process = self.start(*args, **kwargs)
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err

  def finish(self, run_dir: pathlib.Path) -> str:
    """Runs to the end; the last line of stdout."""
    status, out, err = self.run(run_dir)
    assert status == 0, err[-3000:]
    return out.splitlines()[-1]

  def after_warm_start(self, name: str, config=True) -> pathlib.Path:
    """What a process leaves that dies between warm start and training."""
    run_dir = self.root / name
    for part in ("base", "model", "tokenizer"):
      shutil.copytree(self.root / "whole" / part, run_dir / part)
    if config:  # without it the run may have another one
      shutil.copy(self.root / "whole" / "config.json", run_dir)
    return run_dir
