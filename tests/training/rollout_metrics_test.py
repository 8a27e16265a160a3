"""What one iteration's line says about its trajectories."""

import dataclasses

import pytest
from loop_parts import STOP, TASKS, make_trajectory

from agentflow_jax.core import messages as messages_lib
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
    "verdict_failure_rate": 0.0,
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


def test_unreadable_verdicts_are_a_share_of_what_verifiers_wrote():
  task = TASKS[0]
  readable, unread, cut_short = make_trajectory(task, turns=3).turns
  garbled = trajectory_lib.Verdict(stop=False, parsed=False)
  trajectory = dataclasses.replace(
    make_trajectory(task, reward=0.0, stop_reason=STOP.MAX_TOKENS),
    turns=(
      _judged(readable),
      dataclasses.replace(_judged(unread), verdict=garbled),
      # As agent/turn.py leaves it: not `parsed`, and no verifier was asked.
      dataclasses.replace(cut_short, verdict=garbled),
    ),
  )
  metrics = rollouts.rollout_metrics(
    rollouts.Rollout(
      groups=(
        trajectory_lib.TrajectoryGroup(task=task, trajectories=(trajectory,)),
      ),
      position=1,
      refilled=0,
    )
  )
  assert metrics["verdict_failure_rate"] == 0.5


def _judged(turn):
  """The turn with a verifier's answer, which says what the executor's does."""
  call = dataclasses.replace(
    turn.module_calls[-1], role=messages_lib.ModuleRole.VERIFIER
  )
  return dataclasses.replace(turn, module_calls=(*turn.module_calls, call))
