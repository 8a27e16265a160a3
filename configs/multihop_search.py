"""Searching Wikipedia for two to four pages: a small planner learns to, on CPU.

  python launch/train.py --config=configs/multihop_search.py

Questions and passages are real; docs/multihop.md says how to prepare them in
data/. A planner that starts out with random searches has three of them to find
every page that an answer rests on.

Expect: all pages found for .25 of 120 held-out questions before and .39 after
training, in 18 minutes (one seed, two virtual cores, temperature 1); one query
with the question as it stands finds them for .34, and for .42 where it reads as
many passages as three searches. docs/multihop.md has more.
"""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import small_planner_settings


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  small_planner_settings.apply(config, frozen="scripted:search")
  _data(config)
  _episodes(config)
  _learning(config)
  _warm_start(config)
  return config


def _data(config: config_lib.Config) -> None:
  config.tasks.data_dir = "data"
  config.tasks.train = (
    "mix:tfds:two_wiki_train@5,tfds:hotpotqa_train@1,tfds:musique_train@1"
  )
  config.tasks.evaluation = "tfds:two_wiki_dev"
  config.tools.enabled = ("wikipedia_search",)
  config.tools.search_index_dir = "data/wiki_index"
  config.tools.search_top_k = 5
  config.tools.search_passage_chars = 110


def _episodes(config: config_lib.Config) -> None:
  """Three searches."""
  config.agent.max_turns = 3
  config.agent.evaluation_max_turns = 3
  config.agent.max_parse_failures = 3
  config.agent.memory_tokens = 400
  # Below 1 the likeliest step is taken so often that others are not tried.
  config.sampler.temperature = 1.0
  config.sampler.max_prompt_tokens = 480
  config.sampler.max_completion_tokens = 24
  config.sampler.prefill_chunk_tokens = 64


def _learning(config: config_lib.Config) -> None:
  config.learner.lr = 4e-4
  config.learner.kl_coefficient = 0.05
  config.learner.row_tokens = 512
  config.learner.micro_batch_rows = 2
  config.training.iterations = 24
  config.training.evaluate_every = 8
  config.training.checkpoint_every = 8


def _warm_start(config: config_lib.Config) -> None:
  config.warm_start.vocab_size = 8192
  config.warm_start.copy_steps = 150
  config.warm_start.plans_per_prompt = 8
  config.warm_start.renamed_share = 0.0
  config.warm_start.imitation_steps = 900
  config.warm_start.imitation_rows = 4
