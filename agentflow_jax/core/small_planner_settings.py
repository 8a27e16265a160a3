"""The settings that configs of small planners share: from scratch, on a CPU.

A planner of a million parameters speaks the compact format, starts out with a
random strategy (the warm start) and then learns by many small steps. What
those must not harm is copying names it has never seen.
"""

from agentflow_jax.core import config as config_lib


def apply(config: config_lib.Config, frozen: str) -> None:
  """Sets what does not depend on the questions.

  Args:
    config: changed in place.
    frozen: the engine of every role but the planner's, rules.
  """
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, frozen)
  config.model.preset = "worldfacts_planner"
  _agent(config)
  _learning(config)
  _warm_start(config)


def _agent(config: config_lib.Config) -> None:
  """Short prompts; every episode of an iteration keeps its slot."""
  config.agent.prompt_style = "compact"
  config.agent.max_episode_tokens = 4096
  config.agent.episode_timeout_s = 120.0
  config.rollout.tasks = 24
  config.rollout.group_size = 8
  config.sampler.slots = 192
  config.sampler.decode_steps = 8


def _learning(config: config_lib.Config) -> None:
  config.learner.schedule = "linear"
  config.learner.warmup_steps = 20
  config.learner.b2 = 0.99
  # Above the gradients of words that are no targets: they should stay put.
  config.learner.eps = 1e-5
  config.learner.train_embeddings = False
  config.learner.kl_estimator = "k2"
  config.learner.mini_batch_trajectories = 64
  config.learner.epochs = 2
  config.learner.loss_chunk_tokens = 4096


def _warm_start(config: config_lib.Config) -> None:
  config.warm_start.enabled = True
  config.warm_start.copy_batch_tokens = 2048
  config.warm_start.copy_lr = 5e-3
  config.warm_start.traces = 5000
  config.warm_start.imitation_lr = 2e-3
