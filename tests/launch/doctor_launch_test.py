"""launch/doctor.py as a process: everything is tried, and nothing hides."""

import os
import pathlib
import shlex
import subprocess
import sys

import api_process
import pytest

pytestmark = pytest.mark.slow
_ROOT = pathlib.Path(__file__).parents[2]
_WRONG_KEY = "sk-canary-wrong-41c7"
# Speaks MCP through its pipes. "dies" ends when its tools are listed again,
# as a doctor does; "absent" says nothing at all.
_MCP = """
import json, os, sys

how, listed = sys.argv[1], 0
if how == "absent":
  sys.exit(3)
for line in sys.stdin:
  request = json.loads(line)
  if "id" not in request:
    continue
  result = {
    "protocolVersion": request.get("params", {}).get("protocolVersion"),
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "clock", "version": "1"},
  }
  if request["method"] == "tools/list":
    listed += 1
    if how == "dies" and listed > 1:
      os._exit(1)
    schema = {"type": "object", "properties": {}}
    result = {"tools": [{"name": "now", "inputSchema": schema}]}
  answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
  print(json.dumps(answer), flush=True)
"""
_TOOLS = '''
import asyncio, os, sys
from agentflow_jax.tools import user_tools

def call() -> str:
  """Does nothing."""
  return ""

class Fine(user_tools.UserTool):
  def __init__(self):
    super().__init__(call)

class WrongCheck(Fine):
  async def check(self):
    key = os.environ["COMPATIBLE_API_KEY"]
    raise TypeError(f"{'x' * 380}\\n{key} is\\nno number")

class WrongStart(Fine):
  def __init__(self):
    raise KeyError("no\\nsuch setting")

class Exits(Fine):
  async def check(self):
    sys.exit(0)

class Cancels(Fine):
  async def check(self):
    raise asyncio.CancelledError

class Hangs(Fine):
  async def check(self):
    await asyncio.sleep(3600)
'''
_CLASSES = {
  "fine": "Fine",
  "wrong_check": "WrongCheck",
  "wrong_start": "WrongStart",
  "exits": "Exits",
  "cancels": "Cancels",
  "hangs": "Hangs",
}


def _site(path):
  """A directory with an installed package that offers tools."""
  path.mkdir()
  (path / "doctors_tools.py").write_text(_TOOLS)
  (path / "broken_module.py").write_text("def f(:\n")
  (path / "server.py").write_text(_MCP)
  info = path / "doctors_tools-1.0.dist-info"
  info.mkdir()
  (info / "METADATA").write_text("Name: doctors_tools\nVersion: 1.0\n")
  lines = [f"{name} = doctors_tools:{c}" for name, c in _CLASSES.items()]
  points = "\n".join(["[agentflow_jax.tools]", *lines, ""])
  (info / "entry_points.txt").write_text(points)
  return path


def _doctor(site, *overrides, **environment):
  """The exit code and the lines of a doctor, by what they are about."""
  inherited = {
    name: value
    for name, value in os.environ.items()
    if not name.endswith("_API_KEY")
  }
  done = subprocess.run(
    [sys.executable, "launch/doctor.py", *overrides],
    cwd=_ROOT,
    env={**inherited, "PYTHONPATH": str(site), **environment},
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert "canary" not in done.stdout + done.stderr
  assert "Traceback" not in done.stderr, done.stderr
  assert done.returncode in (0, 1), done.stderr
  *lines, last = done.stdout.splitlines()
  assert {line[:5] for line in lines} <= {"ok   ", "FAIL "}
  found = dict(line[5:].split(": ", 1) for line in lines)
  failed = {line[5:].split(": ", 1)[0] for line in lines if line[:4] == "FAIL"}
  assert len(found) == len(lines)
  return done.returncode, found, failed, last


def _server(site, name, how):
  command = [sys.executable, "-I", str(site / "server.py"), how]
  return f"{name}={shlex.join(command)}"


@pytest.fixture(scope="module")
def ill(tmp_path_factory):
  """A doctor who finds most of a config broken."""
  site = _site(tmp_path_factory.mktemp("ill") / "site")
  servers = [_server(site, how, how) for how in ("dies", "absent", "clock")]
  with api_process.serve() as api:
    yield _doctor(
      site,
      "--config.engines.planner=openai:gpt-4o",
      "--config.engines.executor=vllm:echo",
      f"--config.engines.executor_options.base_url={api.base_url}",
      "--config.engines.verifier=compatible:hang",
      f"--config.engines.verifier_options.base_url={api.base_url}",
      "--config.engines.generator=compatible:echo",
      f"--config.engines.generator_options.base_url={api.base_url}",
      "--config.engines.tool=azure:gpt-4o",
      "--config.engines.judge=compatible:echo",  # an address is missing
      "--config.engines.call_timeout_s=4",
      "--config.engines.retries=0",
      "--config.tools.user_modules=broken_module,no_such_module",
      "--config.tools.enabled="
      + ",".join(["no_such_tool", "base_generator", *_CLASSES]),
      "--config.tools.call_timeout_s=4",
      "--config.tools.python_timeout_s=2",
      f"--config.tools.mcp_servers={','.join(servers)}",
      COMPATIBLE_API_KEY=api_process.KEY,
      VLLM_API_KEY=_WRONG_KEY,
      AZURE_OPENAI_ENDPOINT=api.base_url,
    )


def test_missing_keys_and_addresses_hide_nothing(ill):
  code, found, failed, last = ill
  assert (code, last) == (1, f"{len(failed)} failed")
  assert failed == {
    *("key OPENAI_API_KEY", "key AZURE_OPENAI_API_KEY"),
    *("engine planner (openai:gpt-4o)", "engine executor (vllm:echo)"),
    *("engine verifier (compatible:hang)", "engine tool (azure:gpt-4o)"),
    "engine judge (compatible:echo)",
    *("module broken_module", "module no_such_module"),
    *("tool no_such_tool", "tool base_generator", "tool wrong_check"),
    *("tool wrong_start", "tool exits", "tool cancels", "tool hangs"),
    *("tool dies", "tool absent"),
  }
  assert set(found) - failed == {
    *("python", "jax", "memory", "sandbox"),
    *("key COMPATIBLE_API_KEY", "key VLLM_API_KEY"),
    "engine generator (compatible:echo)",
    *("tool fine", "tool clock"),
  }
  assert "needs an address" in found["engine judge (compatible:echo)"]
  key = "needs the environment variable AZURE_OPENAI_API_KEY"
  assert key in found["engine tool (azure:gpt-4o)"]
  asks = "it asks engines.tool (azure:gpt-4o), which failed above"
  assert found["tool base_generator"] == asks
  unused = "monty, not used: python_coder is not in tools.enabled"
  assert found["sandbox"] == unused


def test_an_api_that_refuses_or_hangs_is_one_line(ill):
  _, found, _, _ = ill
  refused = found["engine executor (vllm:echo)"]
  assert "Error code: 401" in refused
  assert "[redacted]" in refused  # the server says the key it was sent
  assert "VLLM_API_KEY" in refused
  hung = found["engine verifier (compatible:hang)"]
  assert "did not finish before its deadline" in hung
  assert "answered in" in found["engine generator (compatible:echo)"]


def test_what_a_tool_raises_is_its_line(ill):
  _, found, _, _ = ill
  wrong = found["tool wrong_check"]
  assert wrong.startswith("TypeError: xxx")
  # Cut, and the key that lay across the cut has not left its first half.
  assert api_process.KEY[:6] not in wrong
  assert len(wrong) <= 400
  assert found["tool wrong_start"].startswith("KeyError: 'no")
  assert found["tool exits"] == "SystemExit: 0"
  assert "CancelledError" in found["tool cancels"]
  assert "did not end its check within 4 s" in found["tool hangs"]
  assert "SyntaxError" in found["module broken_module"]
  assert "no_such_module" in found["module no_such_module"]


def test_an_mcp_server_that_dies_is_one_line(ill):
  _, found, _, _ = ill
  assert "MCP server 'dies' failed" in found["tool dies"]
  assert "MCP server 'absent' can not be used" in found["tool absent"]
  assert "answered in" in found["tool clock"]


def test_all_is_well(tmp_path):
  site = _site(tmp_path / "site")
  with api_process.serve() as api:
    api_roles = ("planner", "executor", "verifier", "tool")
    options = [f"--config.engines.{role}=compatible:echo" for role in api_roles]
    options += [
      f"--config.engines.{role}_options.base_url={api.base_url}"
      for role in api_roles
    ]
    code, found, failed, last = _doctor(
      site,
      *options,
      "--config.engines.verifier_options.max_tokens=7",
      "--config.engines.generator=scripted:worldfacts",
      f"--config.engines.cache_dir={tmp_path / 'answers'}",
      "--config.tools.enabled=python_coder,fine",
      f"--config.tools.mcp_servers={_server(site, 'clock', 'lives')}",
      COMPATIBLE_API_KEY=api_process.KEY,
    )
    assert (code, failed, last) == (0, set(), "everything works"), found
    limits = [body["max_tokens"] for body in api.stats()["bodies"]]
  # Roles that ask the same are asked once; python_coder asks its engine too,
  # and no cache answers for it.
  assert limits == [1024, 7, 1024]
  assert (
    "(asked once, as planner)" in found["engine executor (compatible:echo)"]
  )
  assert found["sandbox"].startswith("monty ran a program in ")
  assert "answered in" in found["tool clock"]
