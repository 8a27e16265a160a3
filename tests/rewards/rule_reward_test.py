"""RuleReward through the RewardFn protocol."""

import asyncio

import pytest

from agentflow_jax.core import errors, protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import registry, rule_reward


def _reward(answer, scorer="exact_match", answers=("Vientiane",), **built_for):
  task = task_lib.Task(
    id="q1",
    question="What is the capital of Laos?",
    answers=answers,
    data_source="test",
    scorer=scorer,
  )
  trajectory = trajectory_lib.Trajectory(
    task=task,
    member=0,
    turns=(),
    answer=answer,
    outputs=(),
    stop_reason=trajectory_lib.StopReason.MAX_TURNS,
    policy_version=0,
  )
  scorers = built_for.get("scorers", registry.SCORERS)
  reward: protocols.RewardFn = rule_reward.RuleReward(scorers)
  return asyncio.run(reward(trajectory))


def test_right_wrong_and_empty_answers():
  rewards = [_reward(text) for text in ("the Vientiane", "Hanoi", "", "  ")]
  assert rewards == [1.0, 0.0, 0.0, 0.0]
  assert all(isinstance(reward, float) for reward in rewards)


def test_the_task_picks_its_scorer():
  assert _reward("129.0 m", "numeric_match", ("129",)) == 1.0
  assert _reward("129.0 m", "exact_match", ("129",)) == 0.0


def test_an_unknown_scorer_fails_when_the_reward_is_built():
  with pytest.raises(errors.ConfigError, match="'exactmatch'.*exact_match"):
    rule_reward.RuleReward(["exact_match", "exactmatch"])


def test_a_task_with_another_scorer_is_an_error_not_a_zero():
  with pytest.raises(errors.ConfigError, match="'q1'.*numeric_match"):
    _reward("5", "numeric_match", ("5",), scorers=["exact_match"])


_REFERENCES = {"game24": ("(1+1+1)*8", "8*(1+1+1)"), "multiple_choice": ("B",)}


@pytest.mark.parametrize("scorer", sorted(registry.SCORERS))
def test_every_scorer_rejects_blanks_and_accepts_the_reference(scorer):
  references = _REFERENCES.get(scorer, ("7", "42"))
  assert _reward(references[-1], scorer, references) == 1.0
  assert _reward(" ", scorer, references) == 0.0


def test_a_scorer_may_give_parts():
  assert _reward("the old Lao kip", "qa_f1", ("Lao kip",)) == pytest.approx(0.8)


def test_every_rule_named_for_a_thread_or_a_judge_exists():
  assert set(registry.SCORERS) >= (registry.BLOCKING | registry.JUDGEABLE)
