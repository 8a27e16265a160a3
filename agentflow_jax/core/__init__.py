"""The nouns, Protocols and config every other package speaks in.

Imports nothing of ours and no jax, so the agent half runs without it.
"""
