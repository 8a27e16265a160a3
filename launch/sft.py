r"""Fine-tunes a planner on recorded trajectories; started again, it goes on.

Example:
  python launch/sft.py --checkpoint=runs/quickstart-seed0 \
    --rollouts=runs/quickstart-seed0 --out=runs/sft
  python launch/sft.py --checkpoint=Qwen2.5-7B-Instruct --out=runs/sft-7b \
    --rollouts=good.jsonl --config=configs/flow_grpo_qwen2_5_7b.py \
    --config.model.lora.rank=16

What the roles of learner.trained_roles wrote (so: every planner turn) in
trajectories with enough reward is imitated. The result is a run directory:
export_hf.py, solve.py and evaluate.py take it as --checkpoint, train.py as
--config.model.checkpoint. The agent's settings are those of the run the
checkpoint (else the first of the rollouts) lies in, or of --config. Ctrl-C or
SIGTERM saves and exits 0; the same command resumes.
"""

import pathlib

import host_settings

host_settings.apply()  # before anything imports jax

from absl import flags

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors
from agentflow_jax.rollout import recorder
from agentflow_jax.training import (
  cli,
  compile_cache,
  model_files,
  stop_signal,
)
from agentflow_jax.training import run_dir as run_dir_lib

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "A run, a model or a Hugging Face dir.", required=True
)
_ROLLOUTS = flags.DEFINE_list(
  "rollouts", None, "Runs, folders or files of records, a,b,c.", required=True
)
_OUT = flags.DEFINE_string(
  "out", None, "Run directory to write.", required=True
)
_MIN_REWARD = flags.DEFINE_float(
  "min_reward", 1.0, "Reward that a trajectory must have to be imitated."
)
_LR = flags.DEFINE_float(
  "lr", 1e-5, "Highest learning rate; it warms up and decays by cosine."
)
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Passes.", lower_bound=1)
_BATCH = flags.DEFINE_integer(
  "batch_trajectories",
  32,
  "Trajectories per optimizer step; 0 = all.",
  lower_bound=0,
)
_CHECKPOINT_EVERY = flags.DEFINE_integer(
  "checkpoint_every", 100, "Steps between checkpoints.", lower_bound=1
)
_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> None:
  del argv
  config = chosen_config()
  config_validation.validate(config, training=False)
  model_files.check_model(_CHECKPOINT.value)
  recorder.find_files(_ROLLOUTS.value)  # says so if there are none
  with (
    stop_signal.StopSignal() as stop,
    run_dir_lib.RunDir.open(_OUT.value, config) as opened,
  ):
    from agentflow_jax.assembly import sft
    from agentflow_jax.training import progress

    compile_cache.enable(
      config.run.compile_cache_dir or opened.path.parent / "compile_cache"
    )
    result = sft.run(
      config,
      opened,
      _ROLLOUTS.value,
      min_reward=_MIN_REWARD.value,
      shown=progress.Progress(),
      stop=stop,
    )
  if result is None:
    print(f"STOPPED; the same command resumes out={_OUT.value}")
    return
  print(
    f"SFT loss={result.loss:.4f} steps={result.steps} "
    f"trajectories={result.trajectories} wall_s={result.seconds:.0f} "
    f"run_dir={opened.path}"
  )


def chosen_config() -> config_lib.Config:
  """The named file's, else a run's, else the built-in one; then flags."""
  config = _CONFIG.value
  runs = map(model_files.find_run, (_CHECKPOINT.value, _ROLLOUTS.value[0]))
  run = next((run for run in runs if run is not None), None)
  if run is not None and not cli.has_config_file():
    config = run_dir_lib.read_config(run)
    cli.apply_overrides(config)
  chosen = {
    "run.run_dir": _OUT.value,
    "model.checkpoint": str(pathlib.Path(_CHECKPOINT.value).absolute()),
    "warm_start.enabled": False,
    "learner.lr": _LR.value,
    "learner.schedule": "cosine",
    "learner.warmup_steps": 0,  # follows from the steps
    "learner.epochs": _EPOCHS.value,
    "learner.mini_batch_trajectories": _BATCH.value,
    "training.checkpoint_every": _CHECKPOINT_EVERY.value,
  }
  for key, value in chosen.items():
    if key in cli.overridden_keys():
      raise errors.UserError(
        f"--config.{key} does not apply here; see the flags in --help"
      )
    config_validation.put(config, key, value)
  return config


if __name__ == "__main__":
  cli.run_app(main)
