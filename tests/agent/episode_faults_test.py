"""What an episode does when engines, tools or the clock fail."""

import asyncio
import threading
import time
import tracemalloc

import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.testing import fake_tools
from agentflow_jax.tools import user_tools

STOP = trajectory_lib.StopReason
# How much later than its limit a call may end where others load the machine.
_LATE_S = 2.0


def _raiser(error):
  def rule(text, context):
    raise error

  return rule


@pytest.mark.parametrize("role", ["planner", "executor", "verifier"])
def test_engine_error_masks_and_names_turn_and_role(world, role):
  setattr(world, role, _raiser(errors.EngineError("host is gone")))
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.INFRA_ERROR
  assert trajectory.failure == f"turn 1, {role}: host is gone"
  assert trajectory.masked
  assert trajectory.answer == ""
  assert trajectory.outputs == ()
  assert world.prompts("generator") == []
  # A plan that was sampled is in the record, however far the turn came.
  assert len(trajectory.turns) == (role != "planner")


def test_generator_error_masks_but_keeps_what_there_is(world):
  def only_base(text, context):
    if text.endswith("Output: base answer"):
      return "<answer>1</answer>"
    raise errors.EngineError("host is gone")

  world.generator = only_base
  world.set(outputs=("base", "direct"))
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.INFRA_ERROR
  assert trajectory.failure == "direct output: host is gone"
  assert len(trajectory.turns) == 3
  assert trajectory.outputs == (("base", "<answer>1</answer>"),)
  # Nobody may score what infrastructure left half done.
  assert trajectory.answer == ""


def test_query_analysis_error_masks(world):
  world.generator = _raiser(errors.EngineError("host is gone"))
  world.set(query_analysis=True)
  assert world.run().failure == "query analysis: host is gone"


def test_call_limit_is_infra_error_while_the_episode_has_time(world):
  world.executor = _raiser(errors.DeadlineExceededError("120 s"))
  assert world.run().stop_reason is STOP.INFRA_ERROR


def test_a_bug_in_an_engine_travels_on(world):
  world.executor = _raiser(KeyError("bug"))
  with pytest.raises(KeyError, match="bug"):
    world.run()


@pytest.mark.parametrize("stubborn", [False, True])
def test_hanging_tool_is_masked_with_the_results_before_it(
  world, make_command, stubborn
):
  world.tools = [fake_tools.HangingTool("Echo_Tool", stubborn=stubborn)]
  limit_s = 0.05
  world.limit_tools(timeout_s=limit_s, retries=0)

  async def run():
    # Only so that a failure ends; the bound that counts is below.
    trajectory = await asyncio.wait_for(world.start(), 60)
    world.tools[0].release()
    return trajectory

  trajectory = asyncio.run(run())
  assert trajectory.stop_reason is STOP.INFRA_ERROR
  assert trajectory.failure == (
    "turn 1, tool: Echo_Tool failed after 1 tries: no answer within 0.05 s"
  )
  assert world.tools[0].cancelled >= 1
  (turn,) = trajectory.turns
  assert turn.results[-1].error is tool_lib.ToolErrorKind.TIMEOUT
  assert turn.command
  assert turn.results[-1].duration_s < limit_s + _LATE_S
  assert trajectory.duration_s < limit_s + _LATE_S


def test_a_plain_function_that_sleeps_holds_up_nobody(world, make_plan):
  """It runs in a thread, so its call ends at the limit, not when it does."""
  limit_s, released = 0.2, threading.Event()

  def sleepy(query: str) -> str:
    """Sleeps; much longer than anything here may take, if not released."""
    ends_s = time.monotonic() + 20
    while not released.is_set() and time.monotonic() < ends_s:
      time.sleep(0.05)
    return query

  world.tools = [user_tools.UserTool(sleepy), fake_tools.EchoTool()]
  world.limit_tools(timeout_s=limit_s, retries=0)
  world.planner = lambda text, context: make_plan(
    tool="Echo_Tool" if context.member else "Sleepy_Tool"
  )

  async def run():
    try:
      return await asyncio.gather(*(world.start(member=m) for m in range(4)))
    finally:
      released.set()  # asyncio.run waits for the thread

  blocked, *others = asyncio.run(run())
  assert blocked.failure == (
    "turn 1, tool: Sleepy_Tool failed after 1 tries: no answer within 0.2 s"
  )
  assert blocked.duration_s < limit_s + _LATE_S
  for trajectory in others:
    assert trajectory.stop_reason is STOP.MAX_TURNS
    assert trajectory.duration_s < _LATE_S


def test_episode_deadline_during_a_tool_is_timeout(world):
  world.tools = [fake_tools.HangingTool("Echo_Tool")]
  world.set(episode_timeout_s=0.2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.TIMEOUT
  assert "no answer before the episode's deadline" in trajectory.failure
  assert world.prompts("verifier") == []
  assert world.prompts("generator") == []


def test_episode_deadline_during_an_engine_call_is_timeout(world):
  class Hanging:
    async def generate(self, messages, sampling, context):
      await asyncio.Event().wait()

  world.policy = Hanging()
  world.set(episode_timeout_s=0.05)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.TIMEOUT
  assert trajectory.failure.startswith("turn 1, planner: ")
  assert trajectory.turns == ()


def test_callers_deadline_holds_for_engines_that_never_await(world):
  trajectory = world.run(deadline=deadline_lib.Deadline.after(-1))
  assert trajectory.stop_reason is STOP.TIMEOUT
  assert world.asked == []


@pytest.mark.parametrize(
  "kind",
  [
    errors.ToolHostError,
    errors.EngineError,
    errors.DeadlineExceededError,
    ZeroDivisionError,
    SystemExit,
    asyncio.CancelledError,
  ],
)
def test_whatever_a_tool_raises_is_retried_then_masked(world, kind):
  world.tools = [fake_tools.RaisingTool(kind, "Echo_Tool")]
  world.limit_tools(retries=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.INFRA_ERROR
  assert len(world.tools[0].calls) == 3
  assert "Echo_Tool failed after 3 tries" in trajectory.failure


def test_flaky_tool_recovers_within_its_retries(world):
  world.tools = [fake_tools.FlakyTool(2, "Echo_Tool")]
  world.limit_tools(retries=2)
  world.set(max_turns=1)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  assert trajectory.turns[0].results[0].output == "hi"
  # The same key every time: a tool that samples draws the same tokens.
  assert len({c.key_words() for c in world.tools[0].contexts}) == 1


@pytest.mark.parametrize(
  "kind",
  [
    tool_lib.ToolErrorKind.EXECUTION,
    tool_lib.ToolErrorKind.LIMIT,
    tool_lib.ToolErrorKind.NO_RESULT,
  ],
)
def test_errors_of_the_models_making_are_shown_and_not_retried(world, kind):
  world.tools = [fake_tools.FailingTool(kind, "Echo_Tool")]
  world.limit_tools(retries=2)
  world.set(max_turns=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  assert len(world.tools[0].calls) == 2
  assert f"Result: error ({kind}): can not hi" in world.prompts("planner")[1]


def test_typed_infrastructure_error_of_a_tool_is_masked(world):
  kind = tool_lib.ToolErrorKind.INFRASTRUCTURE
  world.tools = [fake_tools.FailingTool(kind, "Echo_Tool")]
  assert world.run().stop_reason is STOP.INFRA_ERROR


def test_100_mb_result_is_cut_and_counted(world):
  size = 100_000_000
  world.tools = [fake_tools.HugeTool(size, "Echo_Tool")]
  limit_s = 5.0
  world.limit_tools(max_output_chars=1000)
  world.set(max_turns=1, episode_timeout_s=limit_s)
  tracemalloc.start()
  trajectory = world.run()
  _, peak_bytes = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak_bytes < size / 10, "the whole result was copied"
  assert trajectory.stop_reason is STOP.MAX_TURNS
  (result,) = trajectory.turns[0].results
  # No deadline can interrupt what is done with the text once it is here.
  assert trajectory.duration_s < limit_s
  assert len(result.output) in (999, 1000)
  assert result.output.startswith("a.") and result.output.endswith(".z")
  marker = f"[... {result.truncated_chars} characters cut ...]"
  assert marker in result.output
  kept = len(result.output) - len(f" {marker} ")
  assert result.truncated_chars == size - kept
  assert max(map(len, world.prompts("verifier"))) < 5000


def test_cancellation_travels_on_and_stops_the_tool(world):
  world.tools = [fake_tools.HangingTool("Echo_Tool")]

  async def run():
    task = asyncio.create_task(world.start())
    while not world.tools[0].calls:
      await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task
    return len(asyncio.all_tasks())

  assert asyncio.run(run()) == 1
  assert world.tools[0].cancelled == 1


def test_episodes_side_by_side_do_not_mix(world, make_command):
  """Eight interleaved episodes give what each gives alone."""
  world.executor = lambda text, context: make_command(f"m{context.member}")

  async def run():
    return await asyncio.gather(*(world.start(member=m) for m in range(8)))

  for member, trajectory in enumerate(asyncio.run(run())):
    alone = world.run(member=member)
    texts = [
      [call.messages for call in turn.module_calls] for turn in trajectory.turns
    ]
    assert texts == [
      [call.messages for call in turn.module_calls] for turn in alone.turns
    ]
    assert trajectory.turns[0].results[0].output == f"m{member}"


@pytest.mark.parametrize("stage", ["planner", "tool"])
def test_a_turn_has_its_own_deadline(world, stage):
  if stage == "tool":
    tool = fake_tools.HangingTool("Echo_Tool")
    world.tools = [tool]
    failure = "turn 1, tool"
  else:
    failure = "turn 1, planner"

    async def hang(*unused):
      await asyncio.Event().wait()

    world.policy.generate = hang
  world.set(turn_timeout_s=0.1, episode_timeout_s=3000.0)
  trajectory = world.run()
  assert trajectory.stop_reason == trajectory_lib.StopReason.TIMEOUT
  assert trajectory.failure.startswith(failure)
  assert trajectory.duration_s < 5


def test_the_limit_is_each_turns_and_never_beyond_the_episodes(world):
  world.set(turn_timeout_s=50.0, episode_timeout_s=60.0, max_turns=3)
  world.run(deadline=deadline_lib.Deadline.after(3000))
  first, second, third = (c.deadline for c in world.contexts("planner"))
  assert first < second < third
  whole = world.contexts("generator")[0].deadline
  assert third < whole < deadline_lib.Deadline.after(60)
  assert world.contexts("verifier")[1].deadline == second
