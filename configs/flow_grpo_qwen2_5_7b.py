r"""Flow-GRPO for Qwen2.5-7B-Instruct on eight 80 GB GPUs of one host.

  python launch/train.py --config=configs/flow_grpo_qwen2_5_7b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-7B-Instruct

This trains on worldfacts. For questions of your own:

  python launch/train.py --config=configs/flow_grpo_qwen2_5_7b.py \
    --config.model.checkpoint=/path/to/Qwen2.5-7B-Instruct \
    --config.tasks.train=jsonl:train.jsonl \
    --config.tasks.evaluation=jsonl:held_out.jsonl \
    --config.tools.search_index_dir=my_index

One device holds, in GB (1e9 bytes), for 7.62B parameters:
  weights of policy and frozen model, bfloat16       3.8
  whole copies for the two samplers                 30.5
  float32 masters and Adam moments                  11.4
  gradients: float32 sums, one micro-batch's         5.7
  KV caches: 2 x 4 slots of 20480 tokens             9.4
  layer inputs kept for the backward pass            4.1
  sum                                               64.9
Temporaries (one layer, one chunk of logits) come on top. Start it
with XLA_PYTHON_CLIENT_MEM_FRACTION=0.92: jax takes 0.75 of a GPU by itself.
While new weights go to the sampler there are three whole copies and no
gradients: 70.3.

Expect: the paper (arXiv 2510.05592, tables 1 and 2) goes from 47.2 to 57.3 % on
four search benchmarks and from 31.7 to 51.5 % on three of mathematics, with
real web search and a GPT-4o judge. None measured by us yet.

Differs from the reference as core/reference_settings.py says.
"""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import reference_settings


def get_config() -> config_lib.Config:
  config = reference_settings.flow_grpo("qwen2_5_7b", slots=32)
  config.mesh.data = 1
  config.mesh.fsdp = -1
  return config
