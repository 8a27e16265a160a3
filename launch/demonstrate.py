r"""Records demonstrations on train questions, for launch/sft.py to imitate.

Example:
  python launch/demonstrate.py --config=configs/quickstart.py \
    --out=runs/demonstrations.jsonl --questions=576
  python launch/demonstrate.py --config=configs/flow_grpo_qwen2_5_7b.py \
    --config.engines.planner=openai:gpt-4o --out=runs/gpt-4o.jsonl \
    --config.model.checkpoint=/path/to/Qwen2.5-7B-Instruct

The teacher is the scripted planner of worldfacts, or the API that
--config.engines.planner names. Held-out questions are never asked. The file
is whole or absent; started again, the command asks everything again.
"""

import asyncio
import pathlib

import host_settings

host_settings.apply()  # before anything imports jax

from absl import flags

from agentflow_jax.core import config_validation
from agentflow_jax.training import cli, run_dir

_OUT = flags.DEFINE_string("out", None, "File to write.", required=True)
_QUESTIONS = flags.DEFINE_integer(
  "questions", 500, "Train questions to answer.", lower_bound=1
)
_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  config_validation.validate(config, training=False)
  from agentflow_jax.experiments import demonstrating

  out = pathlib.Path(_OUT.value)
  found = asyncio.run(
    demonstrating.record(
      config,
      out,
      questions=_QUESTIONS.value,
      data_dir=pathlib.Path(
        config.tasks.data_dir or run_dir.cache_dir() / "data"
      ),
    )
  )
  print(f"DEMONSTRATIONS episodes={found.episodes} right={found.right} {out}")


if __name__ == "__main__":
  cli.run_app(main)
