"""Named architectures; the Qwen sizes are those of the published configs."""

from agentflow_jax.models import architecture as architecture_lib


def _qwen2_5(hidden, layers, heads, kv_heads, intermediate, tied, vocab=151936):
  return architecture_lib.Architecture(
    vocab_size=vocab,
    hidden_size=hidden,
    num_layers=layers,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_dim=hidden // heads,
    intermediate_size=intermediate,
    max_positions=32768,
    tie_embeddings=tied,
  )


def _worldfacts(hidden, layers):
  return architecture_lib.Architecture(
    vocab_size=4096,
    hidden_size=hidden,
    num_layers=layers,
    num_heads=4,
    num_kv_heads=2,
    # Twice hidden / heads: a head copies a token through its value vector, and
    # half as many dimensions tell thousands of tokens apart too slowly.
    head_dim=hidden // 2,
    intermediate_size=3 * hidden,
    max_positions=4096,
    rope_theta=10_000.0,
  )


def _qwen3(hidden, layers, heads, intermediate, tied):
  return architecture_lib.Architecture(
    family="qwen3",
    vocab_size=151936,
    hidden_size=hidden,
    num_layers=layers,
    num_heads=heads,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=intermediate,
    max_positions=40960,
    tie_embeddings=tied,
  )


ARCHITECTURES = {
  # The embedded default: learns in minutes on two CPU cores.
  "worldfacts_planner": _worldfacts(128, 3),
  # The same planner smaller and larger, to see what its size does.
  "worldfacts_planner_small": _worldfacts(96, 2),
  "worldfacts_planner_large": _worldfacts(160, 4),
  "bench_tiny": architecture_lib.Architecture(
    vocab_size=4096,
    hidden_size=256,
    num_layers=6,
    num_heads=8,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=1024,
    max_positions=4096,
  ),
  "qwen2_5_0_5b": _qwen2_5(896, 24, 14, 2, 4864, True),
  "qwen2_5_1_5b": _qwen2_5(1536, 28, 12, 2, 8960, True),
  "qwen2_5_3b": _qwen2_5(2048, 36, 16, 2, 11008, True),
  "qwen2_5_7b": _qwen2_5(3584, 28, 28, 4, 18944, False, vocab=152064),
  "qwen2_5_14b": _qwen2_5(5120, 48, 40, 8, 13824, False, vocab=152064),
  "qwen2_5_32b": _qwen2_5(5120, 64, 40, 8, 27648, False, vocab=152064),
  "qwen3_0_6b": _qwen3(1024, 28, 16, 3072, True),
  "qwen3_1_7b": _qwen3(2048, 28, 16, 6144, True),
  "qwen3_4b": _qwen3(2560, 36, 32, 9728, True),
  "qwen3_8b": _qwen3(4096, 36, 32, 12288, False),
}
