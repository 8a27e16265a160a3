"""What a server may send, and that a server ends: none of it is believed."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import registry

mcp_transport = pytest.importorskip("agentflow_jax.tools.mcp_transport")

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)
_HERE = pathlib.Path(__file__).parent
_RAW = f"raw={sys.executable} {_HERE / 'raw_mcp.py'}"
_MAX_GROWTH_MIB = 50.0
_LIMIT = "exceeded the 1048576 byte limit"


def _toolbox(entry, **options):
  return registry.build(
    config_lib.ToolsConfig(enabled=(), mcp_servers=(entry,), **options),
    registry.Resources(
      engine=None, sampling=engine_lib.SamplingParams(), search_index_dir=""
    ),
  )


def _execute(toolbox, name):
  return asyncio.run(toolbox[f"raw_{name}_Tool"].execute({}, CONTEXT))


def _measured(entry, *names):
  """By name: error, end of the output, what came after it, MiB it took."""
  done = subprocess.run(
    [sys.executable, _HERE / "mcp_peak.py", entry, *names],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.fixture
def raw_service():
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  process = subprocess.Popen(
    [sys.executable, _HERE / "raw_mcp.py", str(port)],
    stderr=subprocess.DEVNULL,
  )
  give_up_s = time.monotonic() + 120.0
  while time.monotonic() < give_up_s and process.poll() is None:
    try:
      socket.create_connection(("127.0.0.1", port), 1.0).close()
      break
    except OSError:
      time.sleep(0.05)
  yield f"raw=http://127.0.0.1:{port}/mcp"
  process.kill()
  process.wait()


def _check_all(found, limited):
  for name, (error, output, after, grown) in found.items():
    assert after == "ok", name  # the session is as it was
    assert grown < _MAX_GROWTH_MIB, found
    if name in limited:
      assert (error, _LIMIT in output) == ("limit", True), (name, output)


def test_100_mb_from_a_program_are_an_error_and_take_little_memory():
  limited = {"first", "last", "unnamed"}
  found = _measured(_RAW, "fits", *limited)
  _check_all(found, limited)
  assert found["fits"][:2] == [None, "x" * 200]


def test_100_mb_from_a_service_are_an_error_and_take_little_memory(raw_service):
  limited = {"first", "events"}
  names = ("fits", "small_events", "packed", *limited)
  found = _measured(raw_service, *names)
  _check_all(found, limited)
  assert found["fits"][:2] == [None, "x" * 200]
  assert found["small_events"][:2] == [None, "ok"]
  # Nobody asked for it, and what it unpacks to has no limit.
  assert found["packed"][0] == "host"
  assert found["packed"][1].endswith("the answer is packed (gzip)")


def test_an_answer_that_is_too_long_fails_its_own_call_only():
  toolbox = _toolbox(_RAW)

  async def at_once(*names):
    return await asyncio.gather(
      *(toolbox[f"raw_{name}_Tool"].execute({}, CONTEXT) for name in names)
    )

  for name in ("first", "last"):
    long, small = asyncio.run(at_once(name, "small"))
    assert long.error == tool_lib.ToolErrorKind.LIMIT
    assert (small.error, small.output) == (None, "ok")
  # Nobody knows whose this was: no call waits for it in vain.
  long, small = asyncio.run(at_once("unnamed", "small"))
  assert long.error == small.error == tool_lib.ToolErrorKind.LIMIT
  asyncio.run(toolbox.aclose())


def test_lines_are_the_same_however_they_arrive():
  text = b"a\n\n" + b"b" * 9 + b"\n" + b"c" * 1000 + b"d\n12"
  cut = b"c" * mcp_transport._EDGE_BYTES
  expected = [
    (b"a", False),
    (b"", False),
    (b"b" * 9, False),
    (cut + cut[1:] + b"d", True),
  ]
  for size in (1, 7, 300, 5000):
    lines = mcp_transport.Lines(300)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert [line for piece in pieces for line in lines.feed(piece)] == expected
    assert list(lines.feed(b"3\n")) == [(b"123", False)]


def _alive(pid):
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except FileNotFoundError:
    return False
  return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("how", ["willing", "busy", "stubborn"])
def test_a_program_ends_with_its_toolbox(how):
  toolbox = _toolbox(f"{_RAW} {how}")
  pid = int(_execute(toolbox, "pid").output)
  assert _alive(pid)
  assert os.getpgid(pid) == pid  # what it starts ends with it
  if how != "willing":  # it does not read what would end it

    async def start():
      call = toolbox["raw_hang_Tool"].execute({}, CONTEXT)
      await asyncio.wait_for(call, 0.3)

    with pytest.raises(TimeoutError):
      asyncio.run(start())
  asyncio.run(toolbox.aclose())
  assert not _alive(pid)


def test_the_check_of_a_silent_server_ends_in_time():
  toolbox = _toolbox(f"{_RAW} silent", call_timeout_s=0.5)
  started_s = time.monotonic()
  with pytest.raises(errors.ToolHostError, match="raw_pid_Tool did not .* 0.5"):
    asyncio.run(toolbox.check())
  assert time.monotonic() - started_s < 5.0
  asyncio.run(toolbox.aclose())
