r"""Answers questions with a trained planner, showing every turn.

Example:
  python launch/solve.py --checkpoint=runs/quickstart-seed0 \
    "What is the capital of Laos?"
  python launch/solve.py --checkpoint=planner --config=configs/quickstart.py \
    --json "What is the capital of Laos?" "What is the currency of Japan?"

The agent is that of the run the checkpoint lies in: a run directory, or its
hf/. A model that comes alone takes --config. --config.section.key=value changes
either. What the leak audit flags is shown below the answer, and stands in
"flags" with --json. Exits 1 if a question could not be answered because
something failed.
"""

import asyncio
import io
import json
import sys

from absl import flags

from agentflow_jax.assembly import questions
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, redaction
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import leak_audit, record_codec, recorder
from agentflow_jax.training import cli, compile_cache, model_files
from agentflow_jax.training import run_dir as run_dir_lib

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "A run, a model or a Hugging Face dir.", required=True
)
_JSON = flags.DEFINE_bool(
  "json", False, "Print each trajectory as one JSON object per line."
)
_MAX_TURNS = flags.DEFINE_integer(
  "max_turns", None, "As --config.agent.evaluation_max_turns."
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature", None, "As --config.sampler.temperature; 0 is greedy."
)
_SEED = flags.DEFINE_integer("seed", None, "As --config.run.seed.")
_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> int:
  tasks = [questions.to_task(question) for question in argv[1:]]
  config = chosen_config()
  config_validation.validate(config, training=False)
  model_files.check_model(_CHECKPOINT.value)
  run = model_files.find_run(_CHECKPOINT.value)
  compile_cache.enable(
    config.run.compile_cache_dir
    or (run.parent if run else run_dir_lib.cache_dir()) / "compile_cache"
  )
  if isinstance(sys.stdout, io.TextIOWrapper):
    # A terminal that can not show a character gets its escape.
    sys.stdout.reconfigure(errors="backslashreplace")
  return asyncio.run(answer(config, tasks))


def chosen_config() -> config_lib.Config:
  """The named file's, else the run's, else the built-in one; then flags."""
  config = _CONFIG.value
  run = model_files.find_run(_CHECKPOINT.value)
  if run is not None and not cli.has_config_file():
    config = run_dir_lib.read_config(run)
    cli.apply_overrides(config)
  if _MAX_TURNS.value is not None:
    config.agent.evaluation_max_turns = _MAX_TURNS.value
  if _TEMPERATURE.value is not None:
    config.sampler.temperature = _TEMPERATURE.value
  if _SEED.value is not None:
    config.run.seed = _SEED.value
  return config


async def answer(config: config_lib.Config, tasks: list[task_lib.Task]) -> int:
  """Answers them in turn; 1 if one was lost to a failure."""
  from agentflow_jax.assembly import solver as solver_lib
  from agentflow_jax.rollout import transcript

  failed = False
  shown = transcript.Transcript(sys.stdout)
  async with solver_lib.open_solver(config, _CHECKPOINT.value) as solver:
    for task in tasks:
      if _JSON.value:
        trajectory = leak_audit.flagged(await solver.solve(task))
        print(to_json(trajectory), flush=True)
      else:
        shown.question(task.question)
        trajectory = leak_audit.flagged(await solver.solve(task, shown.turn))
        shown.end(trajectory)
      failed |= trajectory.stop_reason.masked
  return int(failed)


def to_json(trajectory: trajectory_lib.Trajectory) -> str:
  """One line; ASCII, so that no terminal obeys what a tool wrote."""
  hide = redaction.Redactor.from_environment()
  record = recorder.redact_record(record_codec.encode(trajectory), hide)
  return json.dumps(record, allow_nan=False)


if __name__ == "__main__":
  cli.run_app(main, arguments="question")
