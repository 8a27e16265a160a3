r"""Flow-GRPO for Qwen2.5-0.5B-Instruct on one 80 GB GPU.

  python launch/train.py --config=configs/flow_grpo_qwen2_5_0_5b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-0.5B-Instruct

This trains on worldfacts. For questions of your own:

  python launch/train.py --config=configs/flow_grpo_qwen2_5_0_5b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-0.5B-Instruct \
    --config.tasks.train=jsonl:train.jsonl \
    --config.tasks.evaluation=jsonl:held_out.jsonl \
    --config.tools.search_index_dir=my_index

One device holds, in GB (1e9 bytes), for 0.49B parameters:
  weights of policy and frozen model, bfloat16       2.0
  float32 masters and Adam moments                   5.9
  gradients: float32 sums, one micro-batch's         3.0
  KV caches: 2 x 64 slots of 20480 tokens           32.2
  layer inputs kept for the backward pass            0.9
  sum                                               44.0
Temporaries (one layer, one chunk of logits) come on top.

Expect: no published figure for this size, and none measured by us yet. A
planner this small often breaks the format at first; watch
parse_failure_rate fall before reward rises.

Differs from the reference as core/reference_settings.py says.
"""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import reference_settings


def get_config() -> config_lib.Config:
  return reference_settings.flow_grpo("qwen2_5_0_5b", slots=64)
