"""A question solved by engines in other processes and threads, over sockets.

The kind of use the original AgentFlow has: a planner of one's own behind a
server, and everybody else behind an OpenAI-compatible endpoint.
"""

import asyncio

import api_process
import plan_model
import pytest
import served

from agentflow_jax.assembly import chat_server
from agentflow_jax.assembly import questions as questions_lib
from agentflow_jax.assembly import solver as solver_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation
from agentflow_jax.core import trajectory as trajectory_lib

_API = "compatible:echo"
_OTHERS = ("executor", "verifier", "generator", "tool")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  pytest.importorskip("httptools")
  return plan_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
  # The planner's server has a key of its own, so a provider of its own.
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)
  monkeypatch.setenv("VLLM_API_KEY", served.TOKEN)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _config(api, **engines) -> config_lib.Config:
  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.evaluation_max_turns = 2
  config.agent.memory_tokens = 128
  config.agent.max_episode_tokens = 2048
  config.tools.enabled = ("base_generator", "wikipedia_search")
  config.engines.frozen_max_tokens = 8
  config.sampler.max_prompt_tokens = 448
  config.sampler.max_completion_tokens = 8
  config.sampler.decode_steps = 4
  config.sampler.prefill_chunk_tokens = 64
  config.sampler.slots = 4  # as the solver, so both compile the same programs
  for role in _OTHERS:
    setattr(config.engines, role, _API)
    config.engines.options(role).base_url = api.base_url
  for key, value in engines.items():
    config_validation.put(config, f"engines.{key.replace('__', '.')}", value)
  config_validation.validate(config, training=False)
  return config


def _solve(config, checkpoint):
  async def main():
    async with solver_lib.open_solver(config, checkpoint) as solver:
      question = questions_lib.to_task("What is the capital of Laos?")
      return await solver.solve(question), solver.engines.metrics()

  return asyncio.run(main())


def _check(trajectory, api):
  """One turn of plan, command, search and verdict; then the answer."""
  assert trajectory.stop_reason == trajectory_lib.StopReason.VERIFIED
  (turn,) = trajectory.turns
  assert turn.decision.tool_name == "Wikipedia_Search_Tool"
  assert turn.decision.sub_goal == "find the capital of Laos"
  assert turn.calls[0].arguments == {"query": "Laos capital"}
  assert turn.results[0].output.startswith("Laos: ")
  assert turn.verdict.stop
  assert trajectory.final_calls[0].completion.text.startswith("echo: ")
  # Executor, verifier, and a generator per output.
  asked = 2 + len(trajectory.final_calls)
  assert api.stats()["requests"] == {"echo": asked}


def test_our_server_plans_and_an_api_does_the_rest(checkpoint):
  with api_process.serve() as api:
    config = _config(
      api,
      planner="vllm:planner",
      planner_options__structured=False,
      planner_options__temperature=0.0,
    )
    opened = chat_server.open_engine(config, checkpoint, "planner")
    with served.serving(opened, max_tokens=8) as port:
      config.engines.planner_options.base_url = f"http://127.0.0.1:{port}/v1"
      trajectory, metrics = _solve(config, checkpoint)
      assert served.health(port)["answered"] == 1
    _check(trajectory, api)
  plan = trajectory.turns[0].module_calls[0].completion
  assert (plan.text, plan.token_ids) == (plan_model.PLAN, ())  # not ours here
  assert metrics["engine/vllm:planner/requests"] == 1
  # The three lines and the end: usage travels back.
  assert metrics["engine/vllm:planner/completion_tokens"] == 4


def test_the_checkpoint_plans_and_an_api_does_the_rest(checkpoint):
  with api_process.serve() as api:
    trajectory, metrics = _solve(_config(api), checkpoint)
    _check(trajectory, api)
  plan = trajectory.turns[0].module_calls[0].completion
  assert plan.text == plan_model.PLAN
  assert len(plan.token_ids) == 4
  assert metrics["engine/trainable/calls"] == 1
