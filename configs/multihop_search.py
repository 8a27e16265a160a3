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


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  _world(config)
  _sampling(config)
  _learning(config)
  _warm_start(config)
  return config


def _world(config: config_lib.Config) -> None:
  """Three searches; frozen modules are rules that only pass things on."""
  config.tasks.data_dir = "data"
  config.tasks.train = (
    "mix:tfds:two_wiki_train@5,tfds:hotpotqa_train@1,tfds:musique_train@1"
  )
  config.tasks.evaluation = "tfds:two_wiki_dev"
  config.tools.enabled = ("wikipedia_search",)
  config.tools.search_index_dir = "data/wiki_index"
  config.tools.search_top_k = 5
  config.tools.search_passage_chars = 110
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, "scripted:search")
  config.agent.max_turns = 3
  config.agent.evaluation_max_turns = 3
  config.agent.max_parse_failures = 3
  config.agent.prompt_style = "compact"
  config.agent.memory_tokens = 400
  config.agent.max_episode_tokens = 4096
  config.agent.episode_timeout_s = 120.0


def _sampling(config: config_lib.Config) -> None:
  config.model.preset = "worldfacts_planner"
  # Below 1 the likeliest step is taken so often that others are not tried.
  config.sampler.temperature = 1.0
  config.sampler.max_prompt_tokens = 480
  config.sampler.max_completion_tokens = 24
  config.sampler.slots = 192
  config.sampler.decode_steps = 8
  config.sampler.prefill_chunk_tokens = 64
  config.rollout.tasks = 24
  config.rollout.group_size = 8


def _learning(config: config_lib.Config) -> None:
  """As the quickstart's: what small steps must not harm is copying."""
  config.learner.lr = 4e-4
  config.learner.schedule = "linear"
  config.learner.warmup_steps = 20
  config.learner.b2 = 0.99
  config.learner.eps = 1e-5
  config.learner.train_embeddings = False
  config.learner.kl_coefficient = 0.05
  config.learner.kl_estimator = "k2"
  config.learner.mini_batch_trajectories = 64
  config.learner.epochs = 2
  config.learner.row_tokens = 512
  config.learner.micro_batch_rows = 2
  config.learner.loss_chunk_tokens = 4096
  config.training.iterations = 24
  config.training.evaluate_every = 8
  config.training.checkpoint_every = 8


def _warm_start(config: config_lib.Config) -> None:
  config.warm_start.enabled = True
  config.warm_start.vocab_size = 8192
  config.warm_start.copy_steps = 150
  config.warm_start.copy_batch_tokens = 2048
  config.warm_start.copy_lr = 5e-3
  config.warm_start.traces = 5000
  config.warm_start.plans_per_prompt = 8
  config.warm_start.renamed_share = 0.0
  config.warm_start.imitation_steps = 900
  config.warm_start.imitation_rows = 4
  config.warm_start.imitation_lr = 2e-3
