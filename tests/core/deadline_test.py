"""Deadlines: what waits is cut off, what does not wait pays for no timer."""

import asyncio

import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors


def _within(make, seconds=30.0):
  """The outcome of `within` around the coroutine that `make` returns."""
  deadline = deadline_lib.Deadline.after(seconds)
  return asyncio.run(_run(make, deadline))


async def _run(make, deadline):
  return await deadline_lib.within(make(), deadline, "the work")


def test_what_does_not_wait_sets_no_timer(monkeypatch):
  def refused(delay):
    raise AssertionError(f"a timer of {delay} s")

  async def at_once():
    return 7

  monkeypatch.setattr(asyncio, "timeout", refused)
  assert _within(at_once) == 7
  with pytest.raises(AssertionError, match="a timer"):
    _within(lambda: asyncio.sleep(0))


def test_what_waits_gets_what_it_waited_for():
  async def work():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 3)
    first = await future
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
      return first + await asyncio.sleep(0, result=4)

  assert _within(work) == 7


@pytest.mark.parametrize("waits", [False, True])
def test_errors_of_the_work_come_through(waits):
  async def work():
    if waits:
      await asyncio.sleep(0)
    raise KeyError("mine")

  with pytest.raises(KeyError, match="mine"):
    _within(work)


@pytest.mark.parametrize("waits", [False, True])
def test_a_timeout_inside_the_work_is_the_deadlines_error(waits):
  async def work():
    if waits:
      await asyncio.sleep(0)
    raise TimeoutError

  with pytest.raises(errors.DeadlineExceededError, match="the work"):
    _within(work)


def test_the_deadline_cancels_at_the_point_of_waiting():
  cleaned = []

  async def work():
    try:
      await asyncio.Event().wait()
    finally:
      await asyncio.sleep(0)
      cleaned.append(True)

  with pytest.raises(errors.DeadlineExceededError):
    _within(work, 0.01)
  assert cleaned == [True]


def test_the_inner_of_two_deadlines_fires_alone():
  async def inner():
    return await deadline_lib.within(
      asyncio.Event().wait(), deadline_lib.Deadline.after(0.01), "the inner"
    )

  async def work():
    with pytest.raises(errors.DeadlineExceededError, match="the inner"):
      await inner()
    return await asyncio.sleep(0, result="went on")

  assert _within(work) == "went on"


def test_cancelling_the_caller_is_no_deadline():
  async def main():
    deadline = deadline_lib.Deadline.after(30)
    task = asyncio.ensure_future(
      deadline_lib.within(asyncio.Event().wait(), deadline, "the work")
    )
    await asyncio.sleep(0)
    task.cancel()
    await task

  with pytest.raises(asyncio.CancelledError):
    asyncio.run(main())


def test_tasks_and_futures_are_awaited_as_they_are():
  async def main():
    deadline = deadline_lib.Deadline.after(30)
    task = asyncio.ensure_future(asyncio.sleep(0, result=5))
    return await deadline_lib.within(task, deadline, "the work")

  assert asyncio.run(main()) == 5
