"""Tools by decorator, by entry point, and from MCP servers."""

import asyncio
import contextlib
import importlib.metadata
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time

import local_server
import pytest

from agentflow_jax.agent import tool_calls
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import mcp_tools, registry, user_tools

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)
Kind = tool_lib.ToolErrorKind


@user_tools.tool(limitations=("English only.",))
def word_count(text: str, at_least: int = 0) -> int:
  """Counts the words
  of a text.

  This part is not shown.
  """
  if at_least < 0:
    raise ValueError("at_least must not be negative")
  return len([word for word in text.split() if len(word) >= at_least])


@user_tools.tool
async def lookup(key: str) -> dict:
  """Looks a key up."""
  return {"key": key}


def _toolbox(*enabled, **options):
  return registry.build(
    config_lib.ToolsConfig(enabled=enabled, **options),
    registry.Resources(
      engine=None, sampling=engine_lib.SamplingParams(), search_index_dir=""
    ),
  )


def _execute(tool, **arguments):
  return asyncio.run(tool.execute(arguments, CONTEXT))


def test_a_decorated_function_is_a_tool():
  toolbox = _toolbox("word_count", "lookup")
  tool = toolbox["Word_Count_Tool"]
  assert tool.spec.aliases == ("word_count",)
  assert tool.spec.description == "Counts the words of a text."
  assert tool.spec.limitations == ("English only.",)
  assert tool.spec.output == "int"
  assert tool.spec.inputs["required"] == ["text"]
  assert tool.spec.inputs["additionalProperties"] is False
  assert _execute(tool, text="a bb ccc", at_least=2).output == "2"
  assert json.loads(_execute(toolbox["Lookup_Tool"], key="k").output) == {
    "key": "k"
  }
  assert word_count("a b") == 2  # still a function
  asyncio.run(toolbox.check())
  assert toolbox.metrics()["tool/Word_Count_Tool/calls"] == 1
  asyncio.run(toolbox.aclose())


def test_wrong_arguments_and_value_errors_are_the_models():
  tool = _toolbox("word_count")["Word_Count_Tool"]
  for arguments in ({}, {"text": 3}, {"text": "a", "x": 1}):
    assert _execute(tool, **arguments).error == Kind.INVALID_ARGUMENTS
  result = _execute(tool, text="a", at_least=-1)
  assert (result.error, result.output) == (
    Kind.EXECUTION,
    "at_least must not be negative",
  )


def test_the_check_calls_a_function_with_its_example():
  called = []

  def half(number: int) -> int:
    """Half of an even number."""
    called.append(number)
    if number % 2:
      raise ValueError("it is odd")
    return 10 // (number // 2)

  asyncio.run(user_tools.UserTool(half).check())
  assert called == []
  asyncio.run(user_tools.UserTool(half, example={"number": 4}).check())
  assert called == [4]
  for example, words in (
    ({"number": 3}, "refused: it is odd"),
    ({"numbr": 3}, "refused: number"),
    ({"number": 0}, "raised ZeroDivisionError"),
  ):
    with pytest.raises(errors.ToolHostError, match=words):
      asyncio.run(user_tools.UserTool(half, example=example).check())


def test_functions_that_say_too_little_are_refused():
  def silent(text: str) -> str:
    return text

  def untyped(text) -> str:
    """Does something."""
    return text

  for function in (silent, untyped):
    with pytest.raises(errors.UserError, match=function.__name__):
      user_tools.tool(function)


def test_a_module_is_imported_by_name(tmp_path, monkeypatch):
  (tmp_path / "my_tools_for_test.py").write_text(
    textwrap.dedent('''
      from agentflow_jax.tools import user_tools

      @user_tools.tool
      def shout(text: str) -> str:
        """Makes a text loud."""
        return text.upper()
    ''')
  )
  monkeypatch.syspath_prepend(tmp_path)
  toolbox = _toolbox("shout", user_modules=("my_tools_for_test",))
  assert _execute(toolbox["Shout_Tool"], text="a").output == "A"
  with pytest.raises(errors.UserError, match="no_such_module"):
    _toolbox("shout", user_modules=("no_such_module",))


def test_entry_points(monkeypatch):
  points = importlib.metadata.EntryPoints(
    importlib.metadata.EntryPoint(name, value, user_tools.ENTRY_POINTS)
    for name, value in {
      "by_function": f"{__name__}:word_count",
      "by_class": "builtins:object",
      "gone": "no_such_module:x",
    }.items()
  )
  monkeypatch.setattr(
    importlib.metadata, "entry_points", lambda **kw: points.select(**kw)
  )
  assert list(_toolbox("by_function")) == ["Word_Count_Tool"]
  with pytest.raises(errors.UserError, match="is no tool"):
    _toolbox("by_class")
  with pytest.raises(errors.UserError, match="does not load"):
    _toolbox("gone")
  with pytest.raises(errors.ConfigError, match="by_class, by_function"):
    _toolbox("nothing")


_SERVER = '''
import asyncio, os, sys
from mcp.server.mcpserver import MCPServer
server = MCPServer("clock")

@server.tool()
def add(a: int, b: int) -> str:
  """Adds two numbers."""
  return str(a + b)

@server.tool()
def secret() -> str:
  """Tells a variable."""
  return str(os.environ.get("AGENTFLOW_CANARY_KEY"))

@server.tool()
def fail() -> str:
  """Fails."""
  raise ValueError("no")

@server.tool()
async def hang() -> str:
  """Does not answer."""
  await asyncio.sleep(600)
  return "late"

@server.tool()
def die() -> str:
  """Ends the server."""
  os._exit(1)

server.run({run})
'''


@pytest.fixture
def stdio_server(tmp_path, monkeypatch):
  pytest.importorskip("mcp")
  # Starting a server takes seconds of CPU, and the machine may be busy.
  monkeypatch.setattr(mcp_tools, "_CONNECT_S", 500.0)
  path = tmp_path / "server.py"
  path.write_text(_SERVER.replace("{run}", ""))
  return f"clock={sys.executable} {path}"


def test_the_tools_of_an_mcp_server_appear(stdio_server, monkeypatch):
  monkeypatch.setenv("AGENTFLOW_CANARY_KEY", "canary")
  toolbox = _toolbox("word_count", mcp_servers=(stdio_server,))
  assert list(toolbox)[:2] == ["Word_Count_Tool", "clock_add_Tool"]
  add = toolbox["clock_add_Tool"]
  assert add.spec.description == "Adds two numbers."
  assert set(add.spec.inputs["required"]) == {"a", "b"}
  assert _execute(add, a=2, b=3).output == "5"
  assert _execute(toolbox["clock_secret_Tool"]).output == "None"
  assert _execute(toolbox["clock_fail_Tool"]).error == Kind.EXECUTION
  asyncio.run(toolbox.check())
  asyncio.run(toolbox.aclose())
  asyncio.run(toolbox.aclose())
  with pytest.raises(errors.ToolHostError, match="gone"):
    _execute(add, a=2, b=3)


@pytest.fixture
def http_server(tmp_path):
  """A server process of its own, where it listens, as an entry."""
  pytest.importorskip("mcp")
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  path = tmp_path / "server.py"
  path.write_text(_SERVER.replace("{run}", f'"streamable-http", port={port}'))
  process = subprocess.Popen(
    [sys.executable, path], stderr=subprocess.PIPE, text=True
  )
  give_up_s = time.monotonic() + 120.0
  while time.monotonic() < give_up_s and process.poll() is None:
    with contextlib.suppress(OSError):
      socket.create_connection(("127.0.0.1", port), 1.0).close()
      break
    time.sleep(0.05)
  else:
    process.kill()
    pytest.fail(f"the server did not start: {process.communicate()[1]}")
  yield f"clock=http://127.0.0.1:{port}/mcp"
  process.kill()
  process.communicate()


def test_a_server_over_http(http_server):
  toolbox = _toolbox(mcp_servers=(http_server,))
  add = toolbox["clock_add_Tool"]
  assert set(add.spec.inputs["required"]) == {"a", "b"}
  assert _execute(add, a=2, b=3).output == "5"
  assert _execute(toolbox["clock_fail_Tool"]).error == Kind.EXECUTION
  limits = tool_calls.ToolLimits(
    timeout_s=1.0, retries=0, max_output_chars=1000, max_output_tokens=1000
  )
  started_s = time.monotonic()
  cut = asyncio.run(
    tool_calls.run_call(toolbox["clock_hang_Tool"], {}, limits, CONTEXT)
  )
  assert (cut.error, "within 1 s" in cut.output) == (Kind.TIMEOUT, True)
  assert time.monotonic() - started_s < 60.0
  # The session is as it was: others are answered, and it ends at once.
  assert _execute(add, a=4, b=5).output == "9"
  asyncio.run(toolbox.check())
  asyncio.run(toolbox.aclose())
  assert not [t for t in threading.enumerate() if t.name == "mcp-clock"]
  with pytest.raises(errors.ToolHostError, match="gone"):
    _execute(add, a=2, b=3)


def test_a_server_over_http_is_sent_its_key(monkeypatch):
  pytest.importorskip("mcp")
  monkeypatch.setenv("MCP_MY_CLOCK_TOKEN", "canary")
  sent = []

  def refuse(handler):
    sent.append(handler.headers.get("Authorization"))
    handler.send(b"no", status=401)

  with local_server.serving(refuse) as server:
    for name in ("my-clock", "other"):
      with pytest.raises(errors.UserError, match=name) as refused:
        _toolbox(mcp_servers=(f"{name}={server.url}/mcp",))
      assert "canary" not in str(refused.value)
  assert {sent[0], sent[-1]} == {"Bearer canary", None}


def test_a_server_that_dies_is_a_host_error(stdio_server):
  toolbox = _toolbox(mcp_servers=(stdio_server,))
  with pytest.raises(errors.ToolHostError):
    _execute(toolbox["clock_die_Tool"])
  asyncio.run(toolbox.aclose())


def test_servers_that_are_not_there_are_refused(monkeypatch):
  pytest.importorskip("mcp")
  for entry in ("a=/nonexistent/server", "a=http://127.0.0.1:9/mcp"):
    with pytest.raises(errors.UserError, match="'a' can not be used"):
      mcp_tools.connect(entry)
  for entry in ("a", "=b", "a="):
    with pytest.raises(errors.ConfigError, match="NAME=COMMAND"):
      mcp_tools.connect(entry)
  monkeypatch.setitem(sys.modules, "mcp", None)
  with pytest.raises(errors.UserError, match=r"agentflow_jax\[mcp\]"):
    mcp_tools.connect("a=b")
