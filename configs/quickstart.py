"""The laptop run: a 0.8M-parameter planner learns to use tools in minutes.

  python launch/train.py --config=configs/quickstart.py

Two CPU cores, about 8 minutes. Held-out accuracy goes from about .3 (a planner
that speaks the format and chooses at random) to above .8.
"""

from agentflow_jax.core import config as config_lib


def get_config() -> config_lib.Config:
  config = config_lib.Config()
  config.model.preset = "worldfacts_planner"
  config.agent.max_turns = 5
  config.agent.evaluation_max_turns = 5
  config.agent.prompt_style = "compact"
  config.agent.memory_tokens = 640
  config.agent.max_episode_tokens = 4096
  config.agent.episode_timeout_s = 120.0
  scripted = "scripted:worldfacts"
  config.engines.executor = scripted
  config.engines.verifier = scripted
  config.engines.generator = scripted
  config.engines.tool = scripted
  config.tools.search_top_k = 1
  config.sampler.max_prompt_tokens = 720
  config.sampler.max_completion_tokens = 48
  config.sampler.slots = 64
  config.sampler.decode_steps = 8
  config.sampler.prefill_chunk_tokens = 64
  config.rollout.tasks = 24
  config.rollout.group_size = 8
  config.learner.lr = 2e-4
  config.learner.kl_coefficient = 0.02
  config.learner.row_tokens = 768
  config.learner.micro_batch_rows = 8
  config.learner.loss_chunk_tokens = 4096
  config.warm_start.enabled = True
  config.warm_start.copy_steps = 200
  config.warm_start.copy_batch_tokens = 2048
  config.warm_start.copy_lr = 4e-3
  config.warm_start.traces = 1500
  config.warm_start.imitation_steps = 400
  config.warm_start.imitation_rows = 16
  config.warm_start.imitation_lr = 2e-3
  config.training.iterations = 60
  config.training.evaluate_every = 20
  config.training.checkpoint_every = 20
  return config
