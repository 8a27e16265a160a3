r"""Runs an experiment on how and why Flow-GRPO works; run again, it goes on.

Example:
  python launch/experiment.py --list
  python launch/experiment.py --name=training
  python launch/experiment.py --name=turn_budget --seeds=0,1,2,3,4
  python launch/experiment.py --name=training --teacher=openai:gpt-4o \
    --config=configs/flow_grpo_qwen2_5_0_5b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-0.5B-Instruct
  python launch/experiment.py --name=tool_errors \
    --from=runs/quickstart-seed0,runs/quickstart-seed1 --out=runs/errors

Each condition and seed is a run of a launch script in a directory of its own
below --out. Finished runs are passed over, stopped ones go on, a failed one
names its log and the others go on. All conditions of a seed start from the
same model, which worldfacts makes once per seed for all experiments beside
each other; with --config.model.checkpoint there is nothing to make.

Three seeds take half an hour to an hour and a half on two CPU cores (--list
has an estimate for each), with 24 iterations of training;
--config.training.iterations changes that.
OUT gets result.json, result.md and figure.svg. docs/experiments.md says what
is asked and what the paper found. Exit code 1: something is missing.
"""

import pathlib
import shlex

from absl import flags
from ml_collections import config_flags

from agentflow_jax.core import errors
from agentflow_jax.experiments import plan, runner, runs, summary, table
from agentflow_jax.training import cli, stop_signal

_SCRIPTS = pathlib.Path(__file__).resolve().parent
_BASES = "start_models"  # beside the experiments
_NAME = flags.DEFINE_string("name", "", "The experiment; see --list.")
_LIST = flags.DEFINE_bool("list", False, "Say what there is.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "One run each, a,b,c.")
_OUT = flags.DEFINE_string("out", "", "Folder; else runs/experiments/NAME.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands.")
_FROM = flags.DEFINE_list(
  "from", [], "Training runs that exist, a,b,c: nothing is run, they are read."
)
_CHECKPOINTS = flags.DEFINE_list(
  "checkpoints", [], "Models to compare instead of ours (planner_size), a,b,c."
)
_TEACHER = flags.DEFINE_string(
  "teacher",
  runs.ORACLE,
  "Who demonstrates for SFT: the oracle of worldfacts, or PROVIDER:MODEL.",
)
_SFT_LR = flags.DEFINE_float("sft_lr", None, "Of SFT; else learner.lr.")
_SFT_EPOCHS = flags.DEFINE_integer(
  "sft_epochs", 4, "Passes over the demonstrations.", lower_bound=1
)
_CONFIG = cli.define_config_flag(
  str(_SCRIPTS.parent / "configs" / "quickstart.py")
)


def main(argv: list[str]) -> int:
  del argv
  if _LIST.value:
    print(listing())
    return 0
  experiment = chosen()
  out = pathlib.Path(_OUT.value or f"runs/experiments/{experiment.name}")
  if _FROM.value:
    paths = [pathlib.Path(path) for path in _FROM.value]
    found = summary.read_runs(experiment, paths)
    print(summary.write(out, experiment, found, "of the runs"))
    return 0
  settings = chosen_settings(out)
  planned = plan.make(experiment, settings)
  if _DRY_RUN.value:
    for run in planned:
      done = "  # finished before" if runner.is_finished(run) else ""
      print(shlex.join(run.command) + done)
    return 0
  with stop_signal.StopSignal() as stop:
    outcome = runner.run_all(
      planned, say=lambda line: print(line, flush=True), stop=stop
    )
  if outcome.stopped:
    print(f"STOPPED; the same command resumes out={out}")
    return 0
  found = summary.read(experiment, plan.places(experiment, settings))
  missing = outcome.missing or found.missing
  if found.runs:
    print(summary.write(out, experiment, found, cli.config_name()))
  if missing:
    print(f"EXPERIMENT {experiment.name} INCOMPLETE: {'; '.join(missing)}")
    return 1
  print(f"EXPERIMENT {experiment.name} figure={out / 'figure.svg'}")
  return 0


def listing() -> str:
  """Each experiment with its question, conditions and time."""
  lines = []
  for one in table.EXPERIMENTS.values():
    labels = ", ".join(condition.label for condition in one.shown())
    lines += [
      f"{one.name} (about {one.minutes} min for 3 seeds on two CPU cores)",
      f"  {one.question}",
      f"  {labels}",
    ]
  return "\n".join(lines)


def chosen() -> table.Experiment:
  experiment = table.EXPERIMENTS.get(_NAME.value)
  if experiment is None:
    raise errors.UserError(
      f"there is no experiment {_NAME.value!r}; known are "
      f"{', '.join(table.EXPERIMENTS)}"
    )
  if _CHECKPOINTS.value:
    paths = {pathlib.Path(path).name: path for path in _CHECKPOINTS.value}
    if len(paths) < len(_CHECKPOINTS.value):
      raise errors.UserError("--checkpoints: two folders have one name")
    return table.per_checkpoint(experiment, paths)
  return experiment


def chosen_settings(out: pathlib.Path) -> runs.Settings:
  flag = flags.FLAGS["config"]
  path = config_flags.get_config_filename(flag)
  given = config_flags.get_override_values(flag)
  return runs.Settings(
    config=_CONFIG.value,
    arguments=(f"--config={path}", *runs.flags(given)),
    given=frozenset(given),
    out=out,
    bases=out.parent / _BASES,
    seeds=seeds(),
    scripts=_SCRIPTS,
    teacher=_TEACHER.value,
    sft_lr=_SFT_LR.value,
    sft_epochs=_SFT_EPOCHS.value,
  )


def seeds() -> tuple[int, ...]:
  try:
    found = tuple(int(text) for text in _SEEDS.value)
  except ValueError:
    found = ()
  if not found or len(set(found)) < len(found) or min(found) < 0:
    raise errors.UserError(
      f"--seeds={','.join(_SEEDS.value)}: name numbers from 0, each once"
    )
  return found


if __name__ == "__main__":
  cli.run_app(main)
