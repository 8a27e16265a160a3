"""Hugging Face directories: weights in and out, tokenizers."""
