r"""Trains a planner with Flow-GRPO; started again, it goes on.

Example:
  python launch/train.py --config=configs/quickstart.py
  python launch/train.py --config=configs/quickstart.py \
    --config.learner.lr=3e-4 --config.run.run_dir=runs/lr3e-4

Ctrl-C or SIGTERM finishes the iteration, saves and exits 0; the same command
resumes. Everything lies in the run directory: checkpoints/, metrics.jsonl,
evaluations.jsonl, rollouts/, tensorboard/, hf/ (Hugging Face format) and
report.html. The last line of stdout says what was reached.
"""

import asyncio
import pathlib
from typing import TYPE_CHECKING

import host_settings

host_settings.apply()  # before anything imports jax

from agentflow_jax.core import config_validation
from agentflow_jax.training import (
  cli,
  compile_cache,
  model_files,
  run_dir,
  stop_signal,
)

if TYPE_CHECKING:
  from agentflow_jax.training import run_parts

_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  config_validation.validate(config)
  model_files.check_start(config)
  name = cli.config_name()
  path = config.run.run_dir or f"runs/{name}-seed{config.run.seed}"
  with (
    stop_signal.StopSignal() as stop,
    run_dir.RunDir.open(path, config) as opened,
  ):
    from agentflow_jax.assembly import trainer
    from agentflow_jax.training import progress

    compile_cache.enable(
      config.run.compile_cache_dir or opened.path.parent / "compile_cache"
    )
    result = asyncio.run(
      trainer.train(config, opened, progress.Progress(), stop)
    )
    if result is None:
      print(f"STOPPED; the same command resumes run_dir={path}")
    else:
      print(summary(name.upper(), result, opened.path))


def summary(name: str, result: "run_parts.Result", path: pathlib.Path) -> str:
  """The last line of stdout: what a complete run reached."""
  parts = {"held_out_after": f"{result.after:.2f}"}
  if result.before is not None:
    parts = {"held_out_before": f"{result.before:.2f}"} | parts
  parts |= {family: f"{v:.2f}" for family, v in result.families.items()}
  parts |= {
    "questions": str(result.questions),
    "steps": str(result.steps),
    "wall_s": f"{result.seconds:.0f}",
    "run_dir": str(path),
  }
  return " ".join([name, *(f"{key}={value}" for key, value in parts.items())])


if __name__ == "__main__":
  cli.run_app(main)
