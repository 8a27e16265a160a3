"""RolloutAhead: one rollout at a time, begun before its turn or in it."""

import asyncio

import pytest

from agentflow_jax.training import rollout_ahead, rollouts


class FakeRunner:
  """Rollouts that end when told to."""

  def __init__(self):
    self.events = []
    self.go_on = asyncio.Event()

  async def run(self, iteration, position):
    self.events.append(("begun", iteration, position))
    await self.go_on.wait()
    self.events.append(("done", iteration, position))
    if iteration == 13:
      raise ZeroDivisionError
    return rollouts.Rollout(groups=(), position=position + 2, refilled=0)


def _check(scenario) -> None:
  async def run():
    runner = FakeRunner()
    ahead = rollout_ahead.RolloutAhead(
      runner, lambda: {"requests": float(len(runner.events))}
    )
    await scenario(runner, ahead)

  asyncio.run(run())


def test_a_rollout_that_was_not_started_runs_when_it_is_taken():
  async def scenario(runner, ahead):
    runner.go_on.set()
    done = await ahead.take(1, 4)
    assert runner.events == [("begun", 1, 4), ("done", 1, 4)]
    assert done.rollout.position == 6
    assert done.sampling == {"requests": 2}
    assert done.seconds >= 0
    assert ahead.ran_s() == 0  # nothing was ahead

  _check(scenario)


def test_a_started_one_runs_while_others_do_and_is_taken_once():
  async def scenario(runner, ahead):
    ahead.start(2, 6)
    await asyncio.sleep(0)
    assert runner.events == [("begun", 2, 6)]
    with pytest.raises(RuntimeError, match="never taken"):
      ahead.start(3, 8)
    with pytest.raises(RuntimeError, match=r"\(2, 6\) is under way, not \(3"):
      await ahead.take(3, 8)
    runner.go_on.set()
    await ahead.settle()
    assert runner.events[-1] == ("done", 2, 6)
    ran_s = ahead.ran_s()
    await asyncio.sleep(0.01)
    runner.events.append("an evaluation")
    done = await ahead.take(2, 6)
    # Of the rollout alone: neither the pause nor the evaluation is in it.
    assert done.seconds == ran_s
    assert done.sampling == {"requests": 2}
    ahead.start(3, 8)
    assert (await ahead.take(3, 8)).rollout.position == 10

  _check(scenario)


def test_a_cancelled_one_is_gone():
  async def scenario(runner, ahead):
    ahead.start(2, 6)
    await asyncio.sleep(0)
    await ahead.cancel()
    await ahead.cancel()
    await ahead.settle()
    runner.go_on.set()
    await ahead.take(2, 6)
    assert runner.events == [("begun", 2, 6), ("begun", 2, 6), ("done", 2, 6)]

  _check(scenario)


def test_a_bug_reaches_whoever_takes_it_or_the_log(caplog):
  async def scenario(runner, ahead):
    runner.go_on.set()
    ahead.start(13, 0)
    with pytest.raises(ZeroDivisionError):
      await ahead.take(13, 0)
    ahead.start(13, 0)
    await asyncio.sleep(0.01)
    await ahead.cancel()

  _check(scenario)
  assert caplog.text.count("rollout 13 failed: ZeroDivisionError()") == 1
