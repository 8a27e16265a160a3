"""Searches are scored by what they showed, and by nothing a planner says."""

import asyncio
import dataclasses

import pytest

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import evidence, rule_reward

_TASK = task_lib.Task(
  id="q1",
  question="When was the performer of Get Low born?",
  answers=("October 5, 1987", "5 October 1987"),
  data_source="test",
  scorer="evidence",
  evidence=("Get Low: Get Low is a song", "Dillon  Francis:"),
)
_SONG = "Get Low: Get Low is a song by Dillon Francis."
_SINGER = "Dillon Francis: An American DJ."


def _trajectory(*outputs, error=None, **task):
  turns = tuple(
    trajectory_lib.Turn(
      index=index,
      decision=trajectory_lib.ParseFailure(reason="none"),
      command="",
      calls=(),
      results=(tool_lib.ToolResult(output=output, error=error),),
      verdict=trajectory_lib.Verdict(stop=False),
      module_calls=(),
    )
    for index, output in enumerate(outputs)
  )
  return trajectory_lib.Trajectory(
    task=dataclasses.replace(_TASK, **task),
    member=0,
    turns=turns,
    answer="Get Low; Dillon Francis",
    outputs=(),
    stop_reason=trajectory_lib.StopReason.MAX_TURNS,
    policy_version=0,
  )


@pytest.mark.parametrize(
  ("outputs", "expected"),
  [
    ((_SONG, _SINGER), 1.0),
    ((f"Other: text\n{_SINGER}\n{_SONG}",), 1.0),
    (("get low: GET low is a  song, too", _SINGER), 1.0),
    ((_SONG,), 0.0),
    # Another page of the same title, a title within a text, and a longer one.
    (("Get Low: a film", _SINGER), 0.0),
    ((f"A page: {_SINGER} {_SONG}",), 0.0),
    ((_SONG, "Dillon Francis discography: An album."), 0.0),
    ((), 0.0),
  ],
)
def test_every_page_must_have_been_shown(outputs, expected):
  assert evidence.evidence(_trajectory(*outputs)) == expected


def test_an_error_shows_nothing_and_a_task_without_evidence_is_never_right():
  failed = _trajectory(_SONG, _SINGER, error=tool_lib.ToolErrorKind.NO_RESULT)
  assert evidence.evidence(failed) == 0.0
  assert evidence.evidence(_trajectory(_SONG, evidence=())) == 0.0


@pytest.mark.parametrize(
  ("outputs", "answers", "expected"),
  [
    (("Someone: born October 5, 1987 in Ohio.",), None, 1.0),
    (("Someone: born October 5, 19870 in Ohio.",), None, 0.0),
    ((_SONG, _SINGER), ("yes",), 1.0),
    (("A page: yes, no and maybe",), ("yes", "no"), 0.0),
    # It is in the question, so that any page about it would have it.
    (("Get Low (film): a film",), ("Get Low",), 0.0),
    (("A page: ...",), ("",), 0.0),
  ],
)
def test_an_answer_counts_where_it_says_something(outputs, answers, expected):
  task = {} if answers is None else {"answers": answers}
  trajectory = _trajectory(*outputs, **task)
  assert evidence.evidence_or_answer(trajectory) == expected


def test_the_reward_finds_the_rule_by_its_name():
  reward = rule_reward.RuleReward(["evidence", "exact_match"])
  assert asyncio.run(reward(_trajectory(_SONG, _SINGER))) == 1.0
  assert asyncio.run(reward(_trajectory(_SONG))) == 0.0
