"""The agent suite measures what it says, small."""

import math

import pytest

from agentflow_jax.benchmarks import agent_suite

_SIZES = agent_suite.Sizes(episodes=32, concurrent=32, sandbox_runs=3)


def test_every_number_is_there():
  found = agent_suite.run(_SIZES)
  assert set(found) >= {
    "turns_per_s",
    "episodes_per_s",
    "loop_lag_p99_ms",
    "monty_p50_ms",
    "bubblewrap_p50_ms",
    "leaked_processes",
    "leaked_fds",
  }
  for name, value in found.items():
    if value is not None:
      assert math.isfinite(value) and value >= 0, name
  assert found["turns_per_s_min"] <= found["turns_per_s"]
  assert found["turns_per_s"] <= found["turns_per_s_max"]
  assert found["turns_per_s"] == pytest.approx(3 * found["episodes_per_s"])
  assert found["leaked_processes"] == found["leaked_fds"] == 0
