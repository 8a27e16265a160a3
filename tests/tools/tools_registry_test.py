"""The registry: config names to tools, and what tools promise together."""

import asyncio
import subprocess
import sys
import time

import pytest

from agentflow_jax.agent import arguments as arguments_lib
from agentflow_jax.agent import commands
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bm25_index, metered, registry

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)


class _Engine:
  async def generate(self, messages, sampling, context):
    query = messages[-1].content.rsplit("Query: ", 1)[-1]
    text = f"```python\n{query}\n```"
    return engine_lib.Completion(
      text=text, finish_reason=engine_lib.FinishReason.STOP
    )


def _index(directory, title):
  passages = [
    bm25_index.Passage(id="1", title=title, text="A place."),
    bm25_index.Passage(id="2", title="Other place", text="A place."),
  ]
  bm25_index.build(passages, directory)


def _resources(tmp_path):
  _index(tmp_path / "default", "Laos")
  return registry.Resources(
    engine=_Engine(),
    sampling=engine_lib.SamplingParams(),
    search_index_dir=str(tmp_path / "default"),
  )


def _execute(toolbox, name, query):
  return asyncio.run(toolbox[name].execute({"query": query}, CONTEXT))


def test_the_default_tools_work_and_close(tmp_path):
  toolbox = registry.build(config_lib.ToolsConfig(), _resources(tmp_path))
  assert list(toolbox) == [
    "Base_Generator_Tool",
    "Python_Coder_Tool",
    "Wikipedia_Search_Tool",
  ]
  asyncio.run(toolbox.check())
  assert _execute(toolbox, "Python_Coder_Tool", "print(6 * 7)").output == "42"
  assert "print" in _execute(toolbox, "Base_Generator_Tool", "print").output
  assert _execute(toolbox, "Wikipedia_Search_Tool", "Laos").output.startswith(
    "Laos: A place."
  )
  asyncio.run(toolbox.aclose())
  asyncio.run(toolbox.aclose())
  with pytest.raises(errors.ToolHostError, match="closed"):
    _execute(toolbox, "Python_Coder_Tool", "print(6 * 7)")


def test_every_knob_acts(tmp_path):
  _index(tmp_path / "named", "Mali")
  config = config_lib.ToolsConfig(
    enabled=("wikipedia_search", "python_coder"),
    search_index_dir=str(tmp_path / "named"),
    search_top_k=1,
    python_memory_mb=8,
    python_max_output_chars=100,
  )
  toolbox = registry.build(config, _resources(tmp_path))
  assert list(toolbox) == ["Wikipedia_Search_Tool", "Python_Coder_Tool"]
  found = _execute(toolbox, "Wikipedia_Search_Tool", "Mali place").output
  assert found == "Mali: A place."
  run = lambda code: _execute(toolbox, "Python_Coder_Tool", code)  # noqa: E731
  assert run("print('a' * 200)").truncated_chars == 140
  assert run("[0] * 10**6").output == "memory limit of 8 MiB exceeded"
  asyncio.run(toolbox.aclose())
  hasty = config_lib.ToolsConfig(
    enabled=("python_coder",), python_timeout_s=0.25
  )
  toolbox = registry.build(hasty, _resources(tmp_path))
  assert run("while True: pass").output == "time limit of 0.25 s exceeded"
  asyncio.run(toolbox.aclose())


def test_unknown_and_repeated_names_are_config_errors(tmp_path):
  resources = _resources(tmp_path)
  for enabled, message in (
    (("python_coder", "pyhton_coder"), "'pyhton_coder'; known are base_gen"),
    (("base_generator", "base_generator"), "twice"),
  ):
    config = config_lib.ToolsConfig(enabled=enabled)
    with pytest.raises(errors.ConfigError, match=message):
      registry.build(config, resources)


def test_a_missing_index_stops_the_build(tmp_path):
  config = config_lib.ToolsConfig(search_index_dir=str(tmp_path / "nowhere"))
  with pytest.raises(errors.UserError, match="nowhere"):
    registry.build(config, _resources(tmp_path))


@pytest.mark.parametrize(
  ("name", "settings", "seconds"),
  [
    ("wikipedia_search", {}, float("inf")),
    ("wikipedia_search", {"wikipedia_source": "api"}, 86400),
    ("google_search", {"google_backend": "retrieve"}, 3600),
    ("web_search", {}, 0),  # asks an engine
    ("base_generator", {}, 0),
    ("python_coder", {}, 0),
  ],
)
def test_what_changes_is_not_answered_from_the_cache_for_ever(
  tmp_path, monkeypatch, name, settings, seconds
):
  """A call is repeated just before and just after its answer is too old."""
  config = config_lib.ToolsConfig(
    enabled=(name,), google_url="http://127.0.0.1:9/", **settings
  )
  toolbox = registry.build(config, _resources(tmp_path))
  (tool,) = toolbox.values()
  asked, now_s = [], [1000.0]

  async def execute(arguments, context):
    asked.append(now_s[0])
    return tool_lib.ToolResult(output="found")

  monkeypatch.setattr(tool.tool, "execute", execute)
  monkeypatch.setattr(metered.time, "monotonic", lambda: now_s[0])
  times_s = [0.0, min(seconds, 1e9) - 1, min(seconds, 1e9) + 1]
  for time_s in times_s:
    now_s[0] = 1000.0 + time_s
    asyncio.run(tool.execute({"query": "Laos"}, CONTEXT))
  again = {0: 3, float("inf"): 1}.get(seconds, 2)
  assert len(asked) == again
  asyncio.run(toolbox.aclose())


@pytest.mark.parametrize("enabled", ["python_coder", "base_generator"])
def test_only_a_sandbox_that_is_used_is_tried(monkeypatch, enabled):
  tried = []

  class Sandbox:
    def __init__(self, limits):
      tried.append(limits.memory_mb)

    async def check(self):
      tried.append("check")
      raise errors.UserError("it does not work")

    async def aclose(self):
      tried.append("closed")

  monkeypatch.setattr(registry, "_SANDBOXES", {"monty": Sandbox})
  config = config_lib.ToolsConfig(enabled=(enabled, "mine"), python_memory_mb=7)
  if enabled == "python_coder":
    with pytest.raises(errors.UserError, match="does not work"):
      asyncio.run(registry.check_sandbox(config))
    assert tried == [7, "check", "closed"]
  else:
    asyncio.run(registry.check_sandbox(config))
    assert tried == []


def test_every_spec_is_complete_and_names_do_not_collide(tmp_path):
  config = config_lib.ToolsConfig(
    enabled=tuple(registry.ROWS),
    google_backend="retrieve",
    google_url="http://127.0.0.1:9/",
  )
  toolbox = registry.build(config, _resources(tmp_path))
  assert len(toolbox) == len(registry.ROWS)
  names = []
  for row, (name, tool) in zip(registry.ROWS, toolbox.items(), strict=True):
    spec = tool.spec
    assert spec.name == name
    assert row in spec.aliases
    names += [spec.name, *spec.aliases]
    assert spec.description and spec.output and spec.limitations
    assert spec.best_practices and spec.demos
    assert spec.inputs["type"] == "object"
    fields = spec.inputs["properties"]
    assert spec.inputs["required"] == list(fields)
    assert list(fields) == ["query", *(["url"] if row == "web_search" else [])]
    assert spec.inputs["additionalProperties"] is False
    for field in fields.values():
      assert field["type"] == "string" and field["description"]
    for command, description in spec.demos:
      assert command.startswith('execution = tool.execute(query="')
      assert command.endswith('")') and description
      (call,) = commands.parse_command(command)
      assert arguments_lib.validate_arguments(call, spec) is None
  assert len({name.lower().replace("_", "") for name in names}) == len(names)


def test_the_packages_work_without_jax():
  """Imported, built and searched; jax can not be imported at all."""
  program = """
import sys, tempfile
sys.modules["jax"] = sys.modules["flax"] = None
from agentflow_jax.rewards import rule_reward
from agentflow_jax.tools import bm25_index, registry
p = bm25_index.Passage(id="1", title="Laos", text="A country.")
d = tempfile.mkdtemp()
bm25_index.build([p], d)
assert bm25_index.Bm25Index.open(d).search("laos", 1)[0].passage == p
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"bm25s", "scipy", "torch", "transformers"}, loaded
"""
  subprocess.run([sys.executable, "-c", program], check=True)


class _Checked:
  """A tool of whose check a test knows how it went."""

  def __init__(self, check):
    self.went = []
    self._check = check

  async def check(self):
    try:
      await self._check()
    except asyncio.CancelledError:
      self.went.append("cancelled")
      raise
    self.went.append("done")


async def _nothing():
  pass


async def _hang():
  await asyncio.sleep(600)


async def _hang_on():
  try:
    await asyncio.sleep(600)
  except asyncio.CancelledError:
    await asyncio.sleep(20)


def test_a_check_that_hangs_is_named_and_given_up(monkeypatch):
  monkeypatch.setattr(registry, "_GRACE_S", 0.1)

  async def check(hanging, **others):
    tools = {"Quick": _Checked(_nothing), "Hanging": hanging, **others}
    with pytest.raises(errors.ToolHostError, match="Hanging did not end its"):
      await registry.Toolbox(tools, 0.2).check()
    return [tool.went for tool in tools.values()]

  later = _Checked(_hang)
  went = asyncio.run(check(_Checked(_hang), Later=later))
  assert went == [["done"], ["cancelled"], []]
  # One that does not give up either is left; nobody waits for it.
  started_s = time.monotonic()

  async def left():
    await check(_Checked(_hang_on))
    return time.monotonic() - started_s

  assert asyncio.run(left()) < 10.0


def test_a_check_is_cancelled_with_its_toolbox():
  hanging = _Checked(_hang)

  async def cancelled():
    checking = asyncio.create_task(registry.Toolbox({"A": hanging}).check())
    await asyncio.sleep(0.05)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
      await checking
    await asyncio.sleep(0.05)
    return list(hanging.went)

  assert asyncio.run(cancelled()) == ["cancelled"]


def test_a_check_fails_as_the_tool_says():
  async def missing():
    raise errors.UserError("no key")

  async def timed_out():
    raise TimeoutError("of its own")

  for check, kind in ((missing, errors.UserError), (timed_out, TimeoutError)):
    with pytest.raises(kind):
      asyncio.run(registry.Toolbox({"A": _Checked(check)}, 9.0).check())
