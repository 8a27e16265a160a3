"""Scores of final answers; they meet rollouts through core.protocols."""
