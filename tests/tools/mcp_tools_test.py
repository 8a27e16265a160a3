"""Tools of MCP servers: real servers, in processes of their own."""

import asyncio
import contextlib
import socket
import subprocess
import sys
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
from agentflow_jax.tools import mcp_tools, registry

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)
Kind = tool_lib.ToolErrorKind


def _toolbox(*servers):
  return registry.build(
    config_lib.ToolsConfig(enabled=(), mcp_servers=servers),
    registry.Resources(
      engine=None, sampling=engine_lib.SamplingParams(), search_index_dir=""
    ),
  )


def _execute(tool, **arguments):
  return asyncio.run(tool.execute(arguments, CONTEXT))


_SERVER = '''
import asyncio, os, sys
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
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

calls = []

def counted() -> str:
  """Counts its calls."""
  calls.append(1)
  if len(calls) == 1:
    raise ValueError("not the first time")
  return str(len(calls))

for name, read_only, idempotent in (
  ("both", True, True),
  ("one", True, None),
  ("other", None, True),
  ("refused", True, False),
  ("none", None, None),
):
  server.add_tool(
    counted,
    name=name,
    annotations=ToolAnnotations(
      read_only_hint=read_only, idempotent_hint=idempotent
    ),
  )

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
  toolbox = _toolbox(stdio_server)
  assert next(iter(toolbox)) == "clock_add_Tool"
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
  toolbox = _toolbox(http_server)
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
        _toolbox(f"{name}={server.url}/mcp")
      assert "canary" not in str(refused.value)
  assert {sent[0], sent[-1]} == {"Bearer canary", None}


def test_a_server_that_dies_is_a_host_error(stdio_server):
  toolbox = _toolbox(stdio_server)
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


def test_only_what_a_server_calls_repeatable_is_given_again(stdio_server):
  toolbox = _toolbox(stdio_server)
  both = toolbox["clock_both_Tool"]
  assert _execute(both).error == Kind.EXECUTION
  assert [_execute(both).output for _ in range(3)] == ["2", "2", "2"]
  assert both.metrics()["cached"] == 2
  names = ("one", "other", "refused", "none")
  tools = [toolbox[f"clock_{name}_Tool"] for name in names for _ in range(2)]
  told = [_execute(tool).output for tool in tools]
  assert told == ["3", "4", "5", "6", "7", "8", "9", "10"]
  asyncio.run(toolbox.aclose())
