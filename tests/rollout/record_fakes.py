"""A readable trajectory, and a function that records some."""

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import recorder


def example(text: str = "Vientiane", **changes) -> trajectory_lib.Trajectory:
  """One readable trajectory with `text` in most places."""
  completion = engine_lib.Completion(
    text=text,
    finish_reason=engine_lib.FinishReason.STOP,
    token_ids=(19, 2),
    logprobs=(-0.1, float("-inf")),
    prompt_token_ids=(7, 8, 9),
    policy_version=3,
  )
  call = trajectory_lib.ModuleCall(
    role=messages_lib.ModuleRole.PLANNER,
    messages=(messages_lib.Message("user", f"Question: {text}"),),
    completion=completion,
  )
  turn = trajectory_lib.Turn(
    index=0,
    decision=trajectory_lib.Decision(
      context="Laos", sub_goal="find", tool_name="Wikipedia_Search_Tool"
    ),
    command=text,
    calls=(
      tool_lib.ToolCall(
        tool_name="Wikipedia_Search_Tool", arguments={"query": text}
      ),
    ),
    results=(
      tool_lib.ToolResult(output=text, error=tool_lib.ToolErrorKind.LIMIT),
    ),
    verdict=trajectory_lib.Verdict(stop=True, reason=text),
    module_calls=(call,),
  )
  fields = {
    "task": task_lib.Task(
      id="one_hop/laos",
      question="What is the capital of Laos?",
      answers=("Vientiane",),
      data_source="worldfacts",
    ),
    "member": 2,
    "turns": (turn,),
    "answer": text,
    "outputs": (("direct", text),),
    "stop_reason": trajectory_lib.StopReason.VERIFIED,
    "policy_version": 3,
    "reward": 1.0,
    "final_calls": (call,),
  }
  return trajectory_lib.Trajectory(**(fields | changes))


def write(path, *trajectories, **settings):
  with recorder.record_file(path, step=4, **settings) as put:
    for trajectory in trajectories:
      put(trajectory)
