"""The settings that the Qwen2.5 config files share.

`Config()` holds the algorithm of the paper. `flow_grpo` adds what its
reference implementation sets beside that, and what a language model on
accelerators needs; a config file adds what depends on its size. Here and not
in configs/, because a config file is loaded by its path and can not import
its neighbours; your own config files can start from it too.

Where this deliberately differs from the reference (arXiv 2510.05592, its code):

- Group statistics are over trajectories and turns weigh 1 / (N T_i |a|), as in
  the paper; its code takes both over turns and tokens
  (`learner.statistics_over="turns"`, `learner.aggregation="token_mean"`).
- What is sampled is what is scored: temperature 0.7 in both, no top-p 0.99 and
  no frequency penalty 1.2, which its code samples with and does not score.
- Old log-probabilities are the sampler's own, not computed again.
- A mini-batch is 64 trajectories with all their turns, not 64 turns; nothing
  is dropped to make numbers even. One packed row per micro-batch instead of 4
  single turns gives the same gradient.
- The frozen modules are the start model, greedy (its code: gpt-4o-mini).
- Rewards are the scorers that the tasks name (its code: a GPT-4o judge), and
  search is BM25 over a local index (its code: web search too).
- 200 iterations; its config asks for 5 epochs of 5,693. It evaluates and saves
  every 2 iterations, this every 20 and 10.
"""

from agentflow_jax.core import config as config_lib


def flow_grpo(preset: str, *, slots: int) -> config_lib.Config:
  """The reference's Flow-GRPO run.

  Args:
    preset: a name in models/presets.py, whose sizes the checkpoint has.
    slots: requests that a sampler decodes together, over all devices.

  Returns:
    A Config without a checkpoint; the user names one.

  Example: `flow_grpo("qwen2_5_7b", slots=32)`.
  """
  config = config_lib.Config()
  config.model.preset = preset
  # Float32 masters and moments live in the optimizer state.
  config.model.dtype = "bfloat16"
  config.model.param_dtype = "bfloat16"
  config.model.remat = "block"
  config.engines.frozen_max_tokens = config.sampler.max_completion_tokens
  config.sampler.slots = slots
  config.sampler.prefill_chunk_tokens = 512
  # Waiting for a slot counts towards an episode's time limit. Twice the slots
  # keep the policy's and the frozen model's sampler busy, not more.
  config.rollout.max_concurrent_episodes = 2 * slots
  config.rollout.timeout_s = 4 * 3600.0
  config.learner.dual_clip = 3.0
  config.learner.mini_batch_trajectories = 64
  config.learner.row_tokens = (
    config.sampler.max_prompt_tokens + config.sampler.max_completion_tokens
  )
  config.learner.micro_batch_rows = 1
  config.training.iterations = 200
  config.training.evaluate_every = 20
  config.training.checkpoint_every = 10
  return config
