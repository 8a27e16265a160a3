"""What one iteration's line says about its trajectories."""

import pytest
from loop_parts import STOP, TASKS, make_trajectory

from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.training import rollouts


def test_rollout_metrics_of_hand_made_trajectories():
  even, odd = TASKS[0], TASKS[1]
  broken = tool_lib.ToolErrorKind.EXECUTION
  groups = [
    [
      make_trajectory(even, 0, turns=2, reward=1.0),
      make_trajectory(even, 1, reward=0.0, error=broken, tool="Other_Tool"),
    ],
    [
      make_trajectory(odd, 0, reward=1.0, stop_reason=STOP.MAX_TURNS),
      make_trajectory(odd, 1, turns=5, stop_reason=STOP.INFRA_ERROR),
    ],
  ]
  metrics = rollouts.rollout_metrics(
    rollouts.Rollout(
      groups=tuple(
        trajectory_lib.TrajectoryGroup(
          task=group[0].task, trajectories=tuple(group)
        )
        for group in groups
      ),
      position=2,
      refilled=1,
    )
  )
  expected = {
    "reward": pytest.approx(2 / 3),  # the lost one is no zero
    "reward/even": 0.5,
    "reward/odd": 1.0,
    "turns": pytest.approx(4 / 3),
    "tool_error_rate": 0.25,
    "parse_failure_rate": 0.0,
    "completion_tokens": 3.0,
    "planner_tokens": 27.0,  # the lost ones were sampled all the same
    "refilled_groups": 1.0,
    "tool_mix/Echo_Tool": 0.75,
    "tool_mix/Other_Tool": 0.25,
    "stop/verified": 2.0,
    "stop/max_turns": 1.0,
    "stop/infra_error": 1.0,
  }
  assert {name: metrics[name] for name in expected} == expected
