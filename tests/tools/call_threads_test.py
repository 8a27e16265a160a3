"""Hung functions hold up nobody: not others, not the end of the process."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import call_threads, user_tools

_CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.TOOL)


def _run(function, *args, **kwargs):
  return asyncio.run(
    call_threads.CallThreads("t", **kwargs).run(function, *args)
  )


def test_a_call_gives_what_the_function_gives():
  variable = contextvars.ContextVar("v", default=0)
  variable.set(7)
  assert _run(variable.get) == 7
  assert _run(lambda: threading.current_thread().daemon)
  for error in (ValueError("x"), KeyError("x"), SystemExit(3)):

    def fail(error=error):
      raise error

    with pytest.raises(type(error)):
      _run(fail)
  with pytest.raises(RuntimeError, match="StopIteration"):
    _run(lambda: next(iter(())))


def test_hung_calls_do_not_hold_up_others_and_are_limited():
  release = threading.Event()
  threads = call_threads.CallThreads("slow", max_running=40)

  async def main():
    hung = [asyncio.create_task(threads.run(release.wait)) for _ in range(40)]
    await asyncio.sleep(0.05)
    for task in hung:
      task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    # The pool that rewards and the learner use is as free as before.
    started_s = time.perf_counter()
    await asyncio.wait_for(asyncio.to_thread(len, ""), 5)
    assert time.perf_counter() - started_s < 5
    assert threads.running == 40
    with pytest.raises(errors.ToolHostError, match="slow: 40 calls have not"):
      await threads.run(len, "")

  try:
    asyncio.run(main())
  finally:
    release.set()
  deadline_s = time.monotonic() + 10
  while threads.running and time.monotonic() < deadline_s:
    time.sleep(0.01)
  assert threads.running == 0
  assert asyncio.run(threads.run(len, "abc")) == 3


def test_a_plain_user_tool_has_threads_of_its_own():
  release = threading.Event()

  def stuck(text: str) -> str:
    """Waits for ever."""
    release.wait(30)
    return text

  tool = user_tools.UserTool(stuck)

  async def main():
    for _ in range(16):
      with pytest.raises(TimeoutError):
        await asyncio.wait_for(tool.execute({"text": "a"}, _CONTEXT), 0.01)
    return await asyncio.wait_for(asyncio.to_thread(len, "ab"), 5)

  try:
    assert asyncio.run(main()) == 2
  finally:
    release.set()


def test_the_process_ends_though_a_call_never_does():
  program = (
    "import asyncio, threading\n"
    "from agentflow_jax.tools import call_threads\n"
    "async def main():\n"
    "  call = call_threads.CallThreads('t').run(threading.Event().wait)\n"
    "  try:\n"
    "    await asyncio.wait_for(call, 0.05)\n"
    "  except TimeoutError:\n"
    "    print('cut')\n"
    "asyncio.run(main())\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  )
  assert done.stdout == "cut\n"
