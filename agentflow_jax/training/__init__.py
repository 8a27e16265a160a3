"""The outer loop and what keeps a run alive: checkpoints, metrics, flags."""
