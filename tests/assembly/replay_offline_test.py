"""A recorded run, repeated where nothing it used is there any more.

Recorded with an API, a web search that needs keys, and an MCP server; replayed
with all three gone: their processes ended, their keys unset, their files and
the package that spoke to them missing.
"""

import asyncio
import dataclasses
import shutil
import sys
import textwrap

import api_process
import assembled_world
import local_server
import pytest

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import evaluator
from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.rollout import replay as replay_lib
from agentflow_jax.testing import byte_tokenizer, scripted_engine
from agentflow_jax.tools import base_generator, google_search

_API = "openai:echo"
_KEYS = {
  "OPENAI_API_KEY": api_process.KEY,
  "GOOGLE_API_KEY": "google-canary-61f0",
  "GOOGLE_SEARCH_ENGINE_ID": "engine-canary-88ab",
}
_TOOLS = ("Google_Search_Tool", "clock_tell_Tool", "Base_Generator_Tool")
# The protocol by hand: the SDK's server takes seconds to start.
_MCP_SERVER = """
  import json, sys
  TOOL = {
    "name": "tell", "description": "Tells the time somewhere.",
    "inputSchema": {
      "type": "object", "$defs": {"place": {"type": "string"}},
      "properties": {"query": {"$ref": "#/$defs/place"}}}}
  for line in sys.stdin:
    asked = json.loads(line)
    method, params = asked.get("method"), asked.get("params") or {}
    if "id" not in asked:
      continue
    answer = {}
    if method == "initialize":
      answer = {
        "protocolVersion": params["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "clock", "version": "1"}}
    elif method == "tools/list":
      answer = {"tools": [TOOL]}
    elif method == "tools/call":
      where = params["arguments"]["query"]
      answer = {"content": [{"type": "text", "text": f"noon in {where}"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}),
          flush=True)
"""


def _google(handler):
  item = {"title": "Laos", "link": "https://a.example/", "snippet": "Kip."}
  handler.send_json({"items": [item]})


def _config(api_url, google_url, script, directory, **settings):
  """The planner is the caller's; whoever else is asked is the API."""
  roles = ("executor", "verifier", "generator", "tool")
  config = assembled_world.config(
    tools__enabled=("google_search", "base_generator", "wikipedia_search"),
    tools__mcp_servers=(f"clock={sys.executable} {script}",),
    tools__google_url=google_url,
    rollout__tasks=1,
    rollout__group_size=len(_TOOLS),
    rollout__replay="record",
    rollout__replay_dir=str(directory),
    **{f"engines__{role}": _API for role in roles},
    **{f"engines__{role}_options__base_url": api_url for role in roles},
    **settings,
  )
  config.engines.planner_options.base_url = api_url
  return config


def _policy(gone=False):
  """Each member of a group plans with a tool of its own."""

  def plan(text, context):
    assert not gone, "the policy was asked"
    return (
      "Context: Laos\nSub-Goal: find the capital\n"
      f"Tool Name: {_TOOLS[context.member]}"
    )

  return scripted_engine.FakePolicyEngine(byte_tokenizer.ByteTokenizer(), plan)


def _train(config, data_dir, policy):
  """Groups of one iteration."""

  async def main():
    models = {agents_lib.TRAINABLE: policy}
    async with assembled_world.open_agents(config, data_dir, models) as parts:
      world, _, toolbox, agents = parts
      await toolbox.check()
      return await assembled_world.rollout(config, world, agents)

  return asyncio.run(main())


def _evaluate(config, tmp_path):
  """A question to APIs alone, as an evaluation asks it: with a check first."""
  config = dataclasses.replace(
    config,
    engines=dataclasses.replace(config.engines, planner=_API),
    tasks=dataclasses.replace(config.tasks, data_dir=str(tmp_path / "data")),
  )
  task = task_lib.Task(id="q", question="Q?", answers=(), data_source="quiz")
  request = evaluator.Request(benchmarks={"quiz": [task]}, out=tmp_path / "out")

  async def main():
    async with evaluator.open_answerers(config, request) as (agents, _):
      assert agents is not None
      return await agents.run(task, 0, stream="quiz", evaluation=True)

  return asyncio.run(main())


def _timeless(value):
  """Trajectories without their durations."""
  if dataclasses.is_dataclass(value):
    return type(value).__name__, {
      field.name: _timeless(getattr(value, field.name))
      for field in dataclasses.fields(value)
      if field.name != "duration_s"
    }
  if isinstance(value, list | tuple):
    return [_timeless(child) for child in value]
  return value


def test_a_run_is_repeated_when_everything_it_used_is_gone(
  tmp_path, monkeypatch
):
  pytest.importorskip("mcp")
  for name, value in _KEYS.items():
    monkeypatch.setenv(name, value)
  script = tmp_path / "clock.py"
  script.write_text(textwrap.dedent(_MCP_SERVER))
  with api_process.serve() as api, local_server.serving(_google) as google:
    config = _config(api.base_url, google.url, script, tmp_path / "replay")
    recorded = _train(config, tmp_path / "data", _policy())
    evaluated = _evaluate(config, tmp_path)
    assert api.stats()["requests"]["echo"] > 8
  outputs = [
    result.output
    for trajectory in recorded[0].trajectories
    for turn in trajectory.turns
    for result in turn.results
  ]
  assert outputs[0] == "[1] Laos (https://a.example/): Kip."
  assert outputs[1] == "noon in Laos capital"
  assert outputs[2].startswith("echo: Answer the query as well as you can")
  assert evaluated.turns[0].results[0].output.startswith("Laos: ")

  for name in _KEYS:
    monkeypatch.delenv(name)
  script.unlink()
  monkeypatch.setitem(sys.modules, "mcp", None)
  config.rollout.replay = "replay"
  (index,) = (tmp_path / "data").glob("*-index-*")
  shutil.rmtree(index)
  again = _train(config, tmp_path / "data", _policy(gone=True))
  assert _timeless(again) == _timeless(recorded)
  assert _timeless(_evaluate(config, tmp_path)) == _timeless(evaluated)
  assert not index.exists()


def test_specs_come_back_as_they_were(tmp_path):
  """Schemas have keys with "$", which a record must not take for its own."""
  hairy = tool_lib.ToolSpec(
    name="A_Tool",
    description="d",
    inputs={
      "type": "object",
      "$defs": {"p": {"type": "number", "maximum": 1.5}},
      "properties": {"q": {"$ref": "#/$defs/p"}, "r": {"enum": [None, True]}},
    },
    output="str",
    aliases=("a",),
    demos=(("tool.execute(q=1)", "One."),),
  )
  specs = [hairy, google_search.SPEC, base_generator.SPEC]
  record = replay_lib.Replay("record", str(tmp_path))
  record.keep_specs(["a", "b"], specs)
  record.close()
  replay = replay_lib.Replay("replay", str(tmp_path))
  assert [tool.spec for tool in replay.absent_tools(["a", "b"])] == specs
  with pytest.raises(errors.UserError, match="tools b, a"):
    replay.absent_tools(["b", "a"])
  replay.close()
