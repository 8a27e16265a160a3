"""Qwen2, Qwen2.5 and Qwen3 (dense) in Flax NNX, for training and decoding."""
