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


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  _world(config)
  _sampling(config)
  _learning(config)
  _warm_start(config)
  return config


def _world(config: config_lib.Config) -> None:
  """Short episodes; frozen modules are rules."""
  config.agent.max_turns = 5
  config.agent.evaluation_max_turns = 5
  config.agent.max_parse_failures = 5
  config.agent.prompt_style = "compact"
  config.agent.memory_tokens = 192
  config.agent.max_episode_tokens = 4096
  config.agent.episode_timeout_s = 120.0
  scripted = "scripted:worldfacts"
  config.engines.executor = scripted
  config.engines.verifier = scripted
  config.engines.generator = scripted
  config.engines.tool = scripted
  config.tools.search_top_k = 1


def _sampling(config: config_lib.Config) -> None:
  """Every episode of an iteration keeps its slot; a plan is six tokens."""
  config.model.preset = "worldfacts_planner"
  config.sampler.max_prompt_tokens = 240
  config.sampler.max_completion_tokens = 12
  config.sampler.slots = 192
  config.sampler.decode_steps = 8
  config.sampler.prefill_chunk_tokens = 32
  config.rollout.tasks = 24
  config.rollout.group_size = 8


def _learning(config: config_lib.Config) -> None:
  """Many small steps; what they must not harm is copying unseen names."""
  config.learner.lr = 3e-4
  config.learner.schedule = "linear"
  config.learner.warmup_steps = 20
  config.learner.b2 = 0.99
  # Above the gradients of words that are no targets: they should stay put.
  config.learner.eps = 1e-5
  config.learner.train_embeddings = False
  config.learner.kl_coefficient = 0.15
  config.learner.kl_estimator = "k2"
  config.learner.mini_batch_trajectories = 64
  config.learner.epochs = 2
  config.learner.row_tokens = 256
  config.learner.micro_batch_rows = 4
  config.learner.loss_chunk_tokens = 4096
  config.training.iterations = 36
  config.training.evaluate_every = 18
  config.training.checkpoint_every = 18


def _warm_start(config: config_lib.Config) -> None:
  config.warm_start.enabled = True
  config.warm_start.vocab_size = 2560
  config.warm_start.copy_steps = 80
  config.warm_start.copy_batch_tokens = 2048
  config.warm_start.copy_lr = 5e-3
  config.warm_start.traces = 5000
  config.warm_start.renamed_share = 0.9
  config.warm_start.imitation_steps = 560
  config.warm_start.imitation_rows = 16
  config.warm_start.imitation_lr = 2e-3
