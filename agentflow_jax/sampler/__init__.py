"""Continuous-batching generation with prefix reuse, in plain JAX."""
