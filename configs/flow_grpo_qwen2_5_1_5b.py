r"""Flow-GRPO for Qwen2.5-1.5B-Instruct on one 80 GB GPU.

  python launch/train.py --config=configs/flow_grpo_qwen2_5_1_5b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-1.5B-Instruct

This trains on worldfacts. For questions of your own:

  python launch/train.py --config=configs/flow_grpo_qwen2_5_1_5b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-1.5B-Instruct \
    --config.tasks.train=jsonl:train.jsonl \
    --config.tasks.evaluation=jsonl:held_out.jsonl \
    --config.tools.search_index_dir=my_index

One device holds, in GB (1e9 bytes), for 1.54B parameters:
  weights of policy and frozen model, bfloat16       6.2
  float32 masters and Adam moments                  18.5
  gradients: float32 sums, one micro-batch's         9.3
  KV caches: 2 x 24 slots of 20480 tokens           28.2
  layer inputs kept for the backward pass            1.8
  sum                                               63.9
Temporaries (one layer, one chunk of logits) come on top. Start it
with XLA_PYTHON_CLIENT_MEM_FRACTION=0.92: jax takes 0.75 of a GPU by itself.

Expect: no published figure for this size, and none measured by us yet.

Differs from the reference as core/reference_settings.py says.
"""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import reference_settings


def get_config() -> config_lib.Config:
  return reference_settings.flow_grpo("qwen2_5_1_5b", slots=24)
