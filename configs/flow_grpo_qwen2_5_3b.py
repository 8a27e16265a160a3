r"""Flow-GRPO for Qwen2.5-3B-Instruct on one 80 GB GPU.

  python launch/train.py --config=configs/flow_grpo_qwen2_5_3b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-3B-Instruct

This trains on worldfacts. For questions of your own:

  python launch/train.py --config=configs/flow_grpo_qwen2_5_3b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-3B-Instruct \
    --config.tasks.train=jsonl:train.jsonl \
    --config.tasks.evaluation=jsonl:held_out.jsonl \
    --config.tools.search_index_dir=my_index

One device holds, in GB (1e9 bytes), for 3.09B parameters:
  weights of policy and frozen model, bfloat16      12.3
  float32 masters and Adam moments                  37.0
  gradients: float32 sums, one micro-batch's        18.5
  KV caches: 2 x 6 slots of 10240 tokens             4.5
  layer inputs kept for the backward pass            1.5
  sum                                               73.9
Temporaries (one layer, one chunk of logits) come on top. Start it
with XLA_PYTHON_CLIENT_MEM_FRACTION=0.92: jax takes 0.75 of a GPU by itself.

Expect: the paper shows a gain for this size, in a chart without figures; none
measured by us yet. Six slots make rollouts slow. With several GPUs,
--config.mesh.data=1 --config.mesh.fsdp=-1 splits the optimizer, and then more
slots fit.

Differs from the reference as core/reference_settings.py says, and in prompts of
8,192 tokens instead of 18,432 (so a memory of 4,096), because the optimizer
leaves no more room.
"""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import reference_settings


def get_config() -> config_lib.Config:
  config = reference_settings.flow_grpo("qwen2_5_3b", slots=6)
  config.sampler.max_prompt_tokens = 8192
  config.agent.memory_tokens = 4096
  config.learner.row_tokens = 8192 + config.sampler.max_completion_tokens
  return config
