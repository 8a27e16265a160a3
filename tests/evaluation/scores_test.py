"""summarise: hand-made evaluations with known numbers."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores

StopReason = trajectory_lib.StopReason
ToolErrorKind = tool_lib.ToolErrorKind


def _task(name: str, family: str = "") -> task_lib.Task:
  return task_lib.Task(
    id=name, question="?", answers=("a",), data_source="t", family=family
  )


def _turn(
  tool: str | None = "search",
  error=None,
  role="planner",
  tokens: Any = (),
  parsed=True,
):
  completion = engine_lib.Completion(
    text="",
    finish_reason=engine_lib.FinishReason.STOP,
    token_ids=tuple(range(len(tokens))),
    logprobs=tuple(0.0 for _ in tokens),
  )
  decision = trajectory_lib.ParseFailure(reason="no Tool Name")
  if tool is not None:
    decision = trajectory_lib.Decision(context="", sub_goal="", tool_name=tool)
  return trajectory_lib.Turn(
    index=0,
    decision=decision,
    command="",
    calls=(),
    results=(tool_lib.ToolResult(output="", error=error),),
    verdict=trajectory_lib.Verdict(stop=False, parsed=parsed),
    module_calls=(
      trajectory_lib.ModuleCall(
        role=messages_lib.ModuleRole(role), messages=(), completion=completion
      ),
    ),
  )


def _trajectory(task, reward, turns=(), reason=StopReason.VERIFIED, member=0):
  return trajectory_lib.Trajectory(
    task=task,
    member=member,
    turns=tuple(turns),
    answer="",
    outputs=(),
    stop_reason=reason,
    policy_version=0,
    reward=reward,
  )


def test_masked_and_missing_count_as_wrong_and_are_reported():
  tasks = [_task("a"), _task("b"), _task("c"), _task("d"), _task("e")]
  summary = scores.summarise(
    [
      _trajectory(tasks[0], 1.0),
      _trajectory(tasks[1], 0.0),
      _trajectory(tasks[2], None, reason=StopReason.INFRA_ERROR),
      # A reward from before it was masked must not leak in.
      _trajectory(tasks[3], 1.0, reason=StopReason.TIMEOUT),
    ],
    tasks=tasks,
  )
  assert summary["accuracy"] == pytest.approx(1 / 5)
  assert summary["questions"] == 5
  assert summary["masked"] == 2
  assert summary["missing"] == 1
  assert summary["stop_reasons"] == {
    "infra_error": 1,
    "timeout": 1,
    "verified": 2,
  }


def test_families_have_their_own_fixed_denominators():
  tasks = [_task("a", "one"), _task("b", "one"), _task("c", "two"), _task("d")]
  summary = scores.summarise(
    [_trajectory(tasks[0], 1.0), _trajectory(tasks[2], 0.0)], tasks=tasks
  )
  assert summary["families"] == {"one": 0.5, "two": 0.0}


def test_partial_reward_is_not_a_right_answer():
  summary = scores.summarise(
    [_trajectory(_task("a"), 0.6), _trajectory(_task("b"), 1.0)]
  )
  assert summary["accuracy"] == 0.5
  assert summary["reward"] == pytest.approx(0.8)


def test_several_members_average_inside_a_question():
  tasks = [_task("a"), _task("b")]
  summary = scores.summarise(
    [
      _trajectory(tasks[0], 1.0, member=0),
      _trajectory(tasks[0], 0.0, member=1),
      _trajectory(tasks[1], 1.0, member=1),
    ],
    tasks=tasks,
    members=2,
  )
  assert summary["accuracy"] == pytest.approx(0.5)
  assert (summary["trajectories"], summary["missing"]) == (4, 1)


def test_flags_are_counted_of_all_that_came():
  came = [
    _trajectory(_task("a"), 1.0),
    _trajectory(_task("b"), 0.0),
    _trajectory(_task("c"), None, reason=StopReason.TIMEOUT),
  ]
  both = ("gold_url", "judge_directed")
  flags = ((), both, both[:1])
  summary = scores.summarise(
    [
      dataclasses.replace(trajectory, flags=found)
      for trajectory, found in zip(came, flags, strict=True)
    ]
  )
  assert summary["flags"] == {
    "answer_in_question": 0,
    "gold_url": 2,
    "judge_directed": 1,
  }


def test_behaviour_is_of_the_trajectories_that_ran():
  summary = scores.summarise(
    [
      _trajectory(
        _task("a"),
        1.0,
        [
          _turn("search", tokens="abc"),
          _turn("python", ToolErrorKind.EXECUTION, tokens="abcde"),
          _turn("<script>", ToolErrorKind.UNKNOWN_TOOL),
          _turn(None, ToolErrorKind.NO_CALL),
        ],
      ),
      _trajectory(_task("b"), 0.0, [_turn("search")], StopReason.MAX_TURNS),
      _trajectory(
        _task("c"), None, [_turn("python")] * 9, StopReason.INFRA_ERROR
      ),
    ]
  )
  assert summary["mean_turns"] == 2.5
  assert summary["tool_mix"] == {"python": 0.25, "search": 0.5, "unknown": 0.25}
  assert summary["tool_error_rate"] == 0.5
  assert summary["tool_errors"] == {"execution": 1, "unknown_tool": 1}
  assert summary["parse_failure_rate"] == pytest.approx(1 / 5)
  assert summary["completion_tokens"] == 4.0


def test_only_what_a_verifier_wrote_can_be_an_unreadable_verdict():
  judged = [_turn(role="verifier")] * 3
  turns = [
    *judged,
    _turn(role="verifier", parsed=False),
    # Unreadable plan: nobody judges it, so it is no turn to divide by.
    _turn(None),
    # Cut short (agent/turn.py): not `parsed`, and no verifier was asked.
    _turn(role="executor", parsed=False),
  ]
  lost = [_turn(role="verifier", parsed=False)] * 9
  summary = scores.summarise(
    [
      _trajectory(_task("a"), 1.0, turns, StopReason.MAX_TOKENS),
      _trajectory(_task("b"), None, lost, StopReason.INFRA_ERROR),
    ]
  )
  assert summary["verdict_failure_rate"] == 0.25
  cut_short = [_turn(parsed=False)]
  summary = scores.summarise([_trajectory(_task("a"), 0.0, cut_short)])
  assert summary["verdict_failure_rate"] == 0.0


def test_only_planner_completions_count_as_completion_length():
  turns = [_turn(tokens="ab"), _turn(role="verifier", tokens="abcdefgh")]
  summary = scores.summarise([_trajectory(_task("a"), 1.0, turns)])
  assert summary["completion_tokens"] == 2.0


def test_the_interval_is_the_bootstraps_and_repeats():
  def interval(right, wrong):
    return scores.summarise(
      [
        _trajectory(_task(str(i)), float(i < right))
        for i in range(right + wrong)
      ]
    )["interval"]

  low, high = interval(60, 40)
  # Normal approximation: .6 +- 1.96 * sqrt(.6 * .4 / 100) = .504 ... .696
  assert low == pytest.approx(0.504, abs=0.015)
  assert high == pytest.approx(0.696, abs=0.015)
  several = [interval(right, 201 - right) for right in range(20, 180, 4)]
  assert several == [
    interval(right, 201 - right) for right in range(20, 180, 4)
  ]
  wide_low, wide_high = interval(6, 4)
  assert wide_high - wide_low > 2 * (high - low)
  assert interval(7, 0) == [1.0, 1.0]


def test_nothing_at_all_is_zero_not_an_error():
  summary = scores.summarise([])
  assert summary["accuracy"] == 0.0
  assert summary["interval"] == [0.0, 0.0]
  assert summary["tool_mix"] == {}
  tasks = [_task("a"), _task("b", "one")]
  summary = scores.summarise([], tasks=tasks)
  assert (summary["questions"], summary["missing"]) == (2, 2)
  assert summary["families"] == {"one": 0.0}


def test_the_summary_is_json():
  tasks = [_task("a", "one")]
  summary = scores.summarise(
    [_trajectory(tasks[0], 1.0, [_turn(tokens="abc")])], tasks=tasks
  )
  assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize(
  "trajectories",
  [
    [_trajectory(_task("a"), 1.0), _trajectory(_task("a"), 0.0)],
    [_trajectory(_task("z"), 1.0)],
    [_trajectory(_task("a"), 1.0, member=1)],
  ],
)
def test_what_was_not_asked_is_refused(trajectories):
  with pytest.raises(ValueError, match="twice|not asked"):
    scores.summarise(trajectories, tasks=[_task("a"), _task("b")])


def test_tasks_with_one_id_are_refused():
  with pytest.raises(ValueError, match="share 1 ids"):
    scores.summarise([], tasks=[_task("a"), _task("a")])


def test_scores_import_without_jax():
  code = (
    "import sys\n"
    "from agentflow_jax.evaluation import scores\n"
    "assert 'jax' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
