"""Modules that answer in malformed text, through whole episodes.

Each episode asks one module for garbage or for damaged answers, turn after
turn, and the others for good ones. However it is written, the episode comes to
an end of its own, its record can be read back, and what could not be used is
counted as that.
"""

import asyncio
import json
import random

import malformed
import monolithic_world
import pytest

from agentflow_jax.agent import parsing
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.rollout import recorder

STOP = trajectory_lib.StopReason
_TURNS = 6
_QUICK, _ALL = 300, 10_000
_RECORDS = 60  # episodes whose records are read back
_ENDS = (STOP.VERIFIED, STOP.MAX_TURNS)
_GOOD = {
  "planner": (
    "Context: Laos\nSub-Goal: echo it\nTool Name: Echo_Tool",
    '{"context": "Laos", "sub_goal": "echo it", "tool_name": "Echo_Tool"}',
  ),
  "executor": (
    '```python\nexecution = tool.execute(query="hi")\n```',
    '{"analysis": "a", "command": "execution = tool.execute(query=\'hi\')"}',
  ),
  "verifier": (
    "It is there.\nConclusion: STOP",
    "It is not there.\nConclusion: CONTINUE",
    '{"analysis": "not there", "stop_signal": false}',
  ),
  "generator": ("It is known. <answer>42</answer>",),
  "policy": ("I look. <search>hi</search>", "So: <answer>42</answer>"),
}
_COUNTS = [
  pytest.param(_QUICK, id="some"),
  pytest.param(_ALL, id="all", marks=pytest.mark.slow),
]


class _Mouth:
  """Draws malformed texts, and keeps them."""

  def __init__(self, role):
    self._good = _GOOD[role]
    self._random = random.Random(role)
    self.texts = []

  def __call__(self, text, context):
    rng = self._random
    if rng.random() < 0.5:
      said = malformed.garbage(rng)
    else:
      said = malformed.damaged(rng, rng.choice(self._good))
    self.texts.append(said)
    return said


def _episodes(world, mouth, count):
  """Episodes until `mouth` was asked often enough."""
  world.set(
    max_turns=_TURNS, max_parse_failures=_TURNS + 1, max_episode_tokens=10**9
  )
  trajectories = []

  async def run():
    while len(mouth.texts) < count:
      member = len(trajectories)
      try:
        trajectory = await world.start(member=member)
      except Exception as error:
        raise AssertionError(f"after {mouth.texts[-1]!r}") from error
      trajectories.append(trajectory)

  asyncio.run(run())
  for trajectory in trajectories:
    _check(trajectory)
  for trajectory in trajectories[:_RECORDS]:
    line = recorder.to_line(trajectory, step=1, redact=str)
    assert recorder.from_record(json.loads(line)) == trajectory
  return trajectories


def _check(trajectory):
  """It ended by the rules, and everything in it is typed."""
  assert trajectory.stop_reason in _ENDS and not trajectory.failure
  for turn in trajectory.turns:
    if isinstance(turn.decision, trajectory_lib.ParseFailure):
      assert turn.decision.reason and not turn.calls
    else:
      assert isinstance(turn.decision, trajectory_lib.Decision)
      assert turn.decision.tool_name and turn.decision.sub_goal
    for result in turn.results:
      assert result.error is None or not result.error.is_infrastructure


def _counted(trajectories):
  """What a report says of them."""
  return scores.summarise(
    [trajectory.replace_reward(0.0) for trajectory in trajectories],
    members=len(trajectories),
    resamples=0,
  )


def _share(read):
  """Of what could not be read; both outcomes have to occur."""
  assert len(read) / 50 < sum(read) < len(read) * 49 / 50
  return 1 - sum(read) / len(read)


@pytest.mark.parametrize("count", _COUNTS)
def test_plans(world, count):
  world.planner = mouth = _Mouth("planner")
  trajectories = _episodes(world, mouth, count)
  decisions = [t.decision for x in trajectories for t in x.turns]
  assert len(decisions) == len(mouth.texts)
  share = _share([isinstance(d, trajectory_lib.Decision) for d in decisions])
  counted = _counted(trajectories)["parse_failure_rate"]
  assert counted == pytest.approx(share)


@pytest.mark.parametrize("count", _COUNTS)
def test_commands(world, count):
  world.executor = mouth = _Mouth("executor")
  trajectories = _episodes(world, mouth, count)
  turns = [turn for x in trajectories for turn in x.turns]
  assert [turn.command for turn in turns] == mouth.texts
  kind = tool_lib.ToolErrorKind
  unread = [turn.results[-1].error is kind.NO_CALL for turn in turns]
  _share([not failed for failed in unread])
  assert _counted(trajectories)["tool_errors"]["no_call"] == sum(unread)
  # What was read was run, or refused for its arguments.
  for turn in turns:
    assert turn.results
    for call, result in zip(turn.calls, turn.results, strict=False):
      ran = result.error is None
      assert ran or result.error is kind.INVALID_ARGUMENTS
      assert not ran or result.output == call.arguments["query"]
  assert world.tools[0].calls


@pytest.mark.parametrize("count", _COUNTS)
def test_verdicts(world, count):
  world.verifier = mouth = _Mouth("verifier")
  trajectories = _episodes(world, mouth, count)
  verdicts = [t.verdict for x in trajectories for t in x.turns]
  assert len(verdicts) == len(mouth.texts)
  share = _share([verdict.parsed for verdict in verdicts])
  counted = _counted(trajectories)["verdict_failure_rate"]
  assert counted == pytest.approx(share)
  # What could not be read stops nothing.
  assert all(verdict.parsed for verdict in verdicts if verdict.stop)
  stopped = [x.stop_reason is STOP.VERIFIED for x in trajectories]
  assert sum(verdict.stop for verdict in verdicts) == sum(stopped) > 0


@pytest.mark.parametrize("count", _COUNTS)
def test_answers_and_analyses(world, count):
  """An answer without its tags is the whole text, and scored as that."""
  world.generator = mouth = _Mouth("generator")
  world.verifier = lambda text, context: "Conclusion: STOP"
  world.set(query_analysis=True, outputs=("base", "final", "direct"))
  trajectories = _episodes(world, mouth, count)
  assert len(mouth.texts) == 4 * len(trajectories)
  tagged = []
  for number, trajectory in enumerate(trajectories):
    *_, said = mouth.texts[4 * number : 4 * number + 4]
    found = parsing.extract_answer(said)
    tagged.append(bool(found))
    assert [name for name, _ in trajectory.outputs] == [
      *("base", "final", "direct")
    ]
    outputs = dict(trajectory.outputs)
    assert trajectory.answer == (found or outputs["direct"].strip())
  _share(tagged)


@pytest.mark.parametrize("count", _COUNTS)
def test_pieces_of_one_policy(count):
  world = monolithic_world.World()
  world.says = mouth = _Mouth("policy")
  trajectories = _episodes(world, mouth, count)
  turns = [turn for x in trajectories for turn in x.turns]
  finals = [x for x in trajectories if x.final_calls]
  assert len(turns) + len(finals) == len(mouth.texts)
  read = [isinstance(turn.decision, trajectory_lib.Decision) for turn in turns]
  share = _share(read)
  counted = _counted(trajectories)["parse_failure_rate"]
  assert counted == pytest.approx(share)
  assert sum(read) == len([turn for turn in turns if turn.results])
  verified = [x for x in trajectories if x.stop_reason is STOP.VERIFIED]
  assert verified and all(x.answer for x in verified)
