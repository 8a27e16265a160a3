"""The laptop run: a 1.3M-parameter planner learns to use tools in minutes.

  python launch/train.py --config=configs/quickstart.py

Two CPU cores. The planner starts out speaking the format, with a random
strategy.

Expect: from .27 to .32 before to .86 to .90 after of 300 held-out questions, in
560 to 605 seconds (three seeds on two virtual cores): one search .96 to .98,
two searches .85 to .93, searches and then Python .67 to .81. README.md has each
seed and the speed of those cores.
"""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import small_planner_settings


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  small_planner_settings.apply(config, frozen="scripted:worldfacts")
  _episodes(config)
  _learning(config)
  _warm_start(config)
  return config


def _episodes(config: config_lib.Config) -> None:
  """Five turns at most; a plan is six tokens."""
  config.agent.max_turns = 5
  config.agent.evaluation_max_turns = 5
  config.agent.max_parse_failures = 5
  config.agent.memory_tokens = 192
  config.tools.search_top_k = 1
  config.sampler.max_prompt_tokens = 240
  config.sampler.max_completion_tokens = 12
  config.sampler.prefill_chunk_tokens = 32


def _learning(config: config_lib.Config) -> None:
  config.learner.lr = 3e-4
  config.learner.kl_coefficient = 0.15
  config.learner.row_tokens = 256
  config.learner.micro_batch_rows = 4
  config.training.iterations = 36
  config.training.evaluate_every = 18
  config.training.checkpoint_every = 18


def _warm_start(config: config_lib.Config) -> None:
  config.warm_start.vocab_size = 2560
  config.warm_start.copy_steps = 80
  config.warm_start.renamed_share = 0.9
  config.warm_start.imitation_steps = 560
  config.warm_start.imitation_rows = 16
