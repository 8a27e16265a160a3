"""result and timing: hand-made episodes, numbers worked out on paper."""

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import benchmark_scores


def _task(name, reference, scorer="qa_match"):
  return task_lib.Task(
    id=name,
    question="?",
    answers=(reference,),
    data_source="t",
    scorer=scorer,
  )


def _call(role, messages, text, prompt_ids=0, ids=0):
  return trajectory_lib.ModuleCall(
    role=messages_lib.ModuleRole(role),
    messages=tuple(messages_lib.Message("user", m) for m in messages),
    completion=engine_lib.Completion(
      text=text,
      finish_reason=engine_lib.FinishReason.STOP,
      prompt_token_ids=tuple(range(prompt_ids)),
      token_ids=tuple(range(ids)),
      logprobs=(0.0,) * ids,
    ),
  )


def _turn(*calls):
  return trajectory_lib.Turn(
    index=0,
    decision=trajectory_lib.ParseFailure(reason="no Tool Name"),
    command="",
    calls=(),
    results=(),
    verdict=trajectory_lib.Verdict(stop=False),
    module_calls=calls,
  )


def _episode(
  task, trial, answer, reward, *, turns=(), final_calls=(), seconds=1.0
):
  lost = reward is None
  return trajectory_lib.Trajectory(
    task=task,
    member=trial,
    turns=turns,
    answer=answer,
    outputs=(),
    stop_reason=trajectory_lib.StopReason(
      "infra_error" if lost else "verified"
    ),
    policy_version=0,
    reward=reward,
    duration_s=seconds,
    final_calls=final_calls,
  )


def _finished(*episodes):
  return {(e.task.id, e.member): e for e in episodes}


_RED, _OSLO = _task("red", "red blue"), _task("oslo", "oslo")


def _two_questions():
  """Of 6 episodes 2 are right, 3 are wrong, and one never came."""
  return benchmark_scores.result(
    [_RED, _OSLO],
    _finished(
      _episode(_RED, 0, "red blue", 1.0),
      _episode(_RED, 1, "red", 0.0),
      _episode(_RED, 2, "green red blue", 0.0),
      _episode(_OSLO, 0, "rome", 0.0),
      _episode(_OSLO, 1, "oslo", 1.0),
    ),
    trials=3,
  )


def test_what_never_came_is_missing_and_wrong():
  found = _two_questions()
  assert (found["missing"], found["masked"]) == (1, 0)
  assert found["trajectories"] == 6
  assert found["right"] == {"red": [1, 0, 0], "oslo": [0, 1, 0]}
  assert found["accuracy"] == pytest.approx(2 / 6)  # not 2 of the 5 that came
  assert found["trial_accuracy"] == [0.5, 0.5, 0.0]


def test_a_question_without_any_episode_stays_in_the_denominator():
  found = benchmark_scores.result(
    [_RED, _OSLO], _finished(_episode(_RED, 0, "red blue", 1.0)), trials=1
  )
  assert (found["questions"], found["missing"]) == (2, 1)
  assert found["accuracy"] == 0.5
  assert found["right"]["oslo"] == [0]
  assert (found["token_f1"], found["cover_em"]) == (0.5, 0.5)


def test_pass_at_k():
  """One right of three for both: 1 - C(2, k) / C(3, k)."""
  found = _two_questions()["pass_at_k"]
  assert found == pytest.approx({"1": 1 / 3, "2": 2 / 3, "3": 1.0})


def test_majority_at_k_with_the_earliest_of_a_tie():
  """k=2, red: right where trial 0 is drawn, 2 of 3; oslo: trials 1, 2 only.

  k=3: all of red's answers differ, so the first; of oslo's the first, rome.
  """
  found = _two_questions()["majority_at_k"]
  assert found == pytest.approx(
    {"1": 1 / 3, "2": (2 / 3 + 1 / 3) / 2, "3": 0.5}
  )


def test_votes_count_in_their_normal_form_and_lost_ones_do_not():
  tasks = [_OSLO, _task("lima", "lima")]
  found = benchmark_scores.result(
    tasks,
    _finished(
      _episode(tasks[0], 0, "rome", 0.0),
      _episode(tasks[0], 1, "Oslo", 1.0),
      _episode(tasks[0], 2, "the oslo.", 1.0),
      _episode(tasks[1], 0, "rome", None),
      _episode(tasks[1], 1, "lima", 1.0),
      _episode(tasks[1], 2, "rome", 0.0),
    ),
    trials=3,
  )
  # oslo has two votes; lima and rome one each, and lima's is the earlier.
  assert found["majority_at_k"]["3"] == 1.0
  assert (found["masked"], found["missing"]) == (1, 0)
  assert found["right"]["lima"] == [0, 1, 0]


def test_text_measures_over_all_questions_and_trials():
  """F1: 1, 2/3 (P 1, R 1/2), 4/5 (P 2/3, R 1), 0, 1, and the missing 0."""
  found = _two_questions()
  assert found["token_f1"] == pytest.approx((1 + 2 / 3 + 4 / 5 + 0 + 1) / 6)
  assert found["cover_em"] == pytest.approx(3 / 6)


def test_text_measures_are_of_texts_only():
  tasks = [_OSLO, _task("sum", "4", scorer="math")]
  found = benchmark_scores.result(
    tasks, _finished(_episode(_OSLO, 0, "oslo", 1.0)), trials=1
  )
  assert "token_f1" not in found
  assert "cover_em" not in found


def _with_calls(prices=None):
  """Two episodes of three; the second was lost after its call, which cost."""
  planner = _call("planner", ["x" * 400], "y" * 400, prompt_ids=10, ids=4)
  verifier = _call("verifier", ["abcde", "abcd"], "abcdefghi")  # 9 chars each
  generator = _call("generator", ["a"], "")
  return benchmark_scores.result(
    [_RED, _OSLO, _task("lima", "lima")],
    _finished(
      _episode(
        _RED,
        0,
        "red blue",
        1.0,
        turns=(_turn(planner, verifier), _turn(planner)),
        final_calls=(generator,),
      ),
      _episode(_OSLO, 0, "", None, turns=(_turn(planner),)),
    ),
    trials=1,
    prices=prices,
  )


def test_tokens_are_means_per_episode_by_role():
  assert _with_calls()["tokens"] == {
    "estimated": True,
    "planner": {"prompt": 30 / 2, "completion": 12 / 2},
    # Four characters are a token, begun ones count: 9 are 3.
    "verifier": {"prompt": 3 / 2, "completion": 3 / 2},
    "generator": {"prompt": 1 / 2, "completion": 0.0},
  }


def test_tokens_with_ids_are_no_estimates():
  call = _call("planner", ["x"], "y", prompt_ids=7, ids=2)
  found = benchmark_scores.result(
    [_RED],
    _finished(_episode(_RED, 0, "", 0.0, turns=(_turn(call),))),
    trials=1,
  )
  assert found["tokens"] == {
    "estimated": False,
    "planner": {"prompt": 7.0, "completion": 2.0},
  }


def test_cost_is_of_all_episodes_per_question():
  """Planner: 30 in at 2, 12 out at 8; verifier: 3 at 1, 3 at 5; generator 0."""
  prices = {"planner": (2.0, 8.0), "verifier": (1.0, 5.0), "tool": (9.0, 9.0)}
  dollars = (30 * 2 + 12 * 8 + 3 * 1 + 3 * 5) / 1e6
  found = _with_calls(prices)
  assert found["cost_per_question"] == pytest.approx(dollars / 3)
  assert _with_calls()["cost_per_question"] == 0.0


def test_timing_is_of_what_was_not_lost():
  episodes = [
    _episode(_RED, trial, "", 0.0, seconds=seconds)
    for trial, seconds in enumerate((10.0, 1.0, 4.0, 2.0, 3.0))
  ]
  lost = _episode(_RED, 5, "", None, seconds=100.0)
  found = benchmark_scores.timing(_finished(*episodes, lost))
  # The 95th per cent lies 0.8 of the way from 4 to 10.
  assert found == pytest.approx({"mean_s": 4.0, "p50_s": 3.0, "p95_s": 8.8})
  nothing = {"mean_s": 0.0, "p50_s": 0.0, "p95_s": 0.0}
  assert benchmark_scores.timing(_finished(lost)) == nothing
