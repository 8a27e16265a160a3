"""Both sandboxes against programs that want out (sandbox_attempts.py)."""

import asyncio
import dataclasses
import hashlib
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import sandbox_attempts

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bubblewrap_sandbox, monty_sandbox
from agentflow_jax.tools import sandbox as sandbox_lib

LIMIT_S = 1.0
MEMORY_MB = 64
CANARY = "AGENTFLOW_CANARY_KEY"
VALUE = "canary-41d1c0ffee"
ATTEMPTS = sandbox_attempts.attempts()
_REPOSITORY = pathlib.Path(__file__).parents[2]
_KINDS = {
  "monty": monty_sandbox.MontySandbox,
  "bubblewrap": bubblewrap_sandbox.BubblewrapSandbox,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Host:
  """What lies on the host for the programs to find."""

  secret: pathlib.Path
  values: dict
  connections: list

  def fill(self, code: str) -> str:
    return code.format(**self.values)

  def digest(self) -> str:
    state = self.secret.stat()
    text = f"{self.secret.read_text()} {state.st_mode} {state.st_mtime_ns}"
    names = sorted(os.listdir(self.secret.parent))
    return hashlib.sha256(f"{text} {names}".encode()).hexdigest()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
  directory = tmp_path_factory.mktemp("host")
  secret = directory / "secret.txt"
  secret.write_text(VALUE)
  abstract = f"agentflow-{os.getpid()}"
  servers = [socket.create_server(("127.0.0.1", 0))]
  for address in (str(directory / "s"), f"\0{abstract}"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    servers.append(server)
  os.environ[CANARY] = VALUE
  yield _Host(
    secret=secret,
    connections=servers,
    values={
      "secret": secret,
      "canary": CANARY,
      "repository": _REPOSITORY,
      "tcp": servers[0].getsockname()[1],
      "unix": directory / "s",
      "abstract": abstract,
      "memory": MEMORY_MB,
    },
  )
  del os.environ[CANARY]
  for server in servers:
    server.close()


def _open(kind: str, **limits) -> sandbox_lib.Sandbox:
  """The sandbox, or a skip that says why it does not work here."""
  try:
    sandbox = _KINDS[kind](sandbox_lib.Limits(**limits))
    asyncio.run(sandbox.check())
  except errors.UserError as error:
    pytest.skip(str(error))
  return sandbox


def _descendants() -> set[int]:
  """Living processes under this one, without the `ps` that lists them."""
  command = ["ps", "-axo", "pid=,ppid=,stat="]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ps:
    rows = ps.communicate()[0].splitlines()
  parents = {
    int(pid): int(parent)
    for pid, parent, state in map(str.split, rows)
    if state[0] != "Z"
  }
  found = {os.getpid()}
  while more := {p for p, up in parents.items() if up in found} - found:
    found |= more
  return found - {os.getpid(), ps.pid}


@pytest.fixture(scope="module", params=sorted(_KINDS))
def outcomes(request, host):
  """Every attempt once, by name."""
  before = _descendants()
  files = host.digest()
  sandbox = _open(
    request.param, timeout_s=LIMIT_S, memory_mb=MEMORY_MB, workers=3
  )

  async def one(attempt, free):
    async with free:
      return await sandbox.run(host.fill(attempt.code))

  async def all_of_them():
    free = asyncio.Semaphore(3)
    runs = await asyncio.gather(*(one(a, free) for a in ATTEMPTS))
    return dict(zip((a.name for a in ATTEMPTS), runs, strict=True))

  found = asyncio.run(all_of_them())
  asyncio.run(sandbox.aclose())
  survivors = _descendants() - before
  return request.param, found, files == host.digest(), survivors


def test_there_are_enough_attempts():
  assert len(ATTEMPTS) >= 60
  assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_no_attempt_gets_out(outcomes, attempt):
  _, found, _, _ = outcomes
  run = found[attempt.name]
  shown = run.output + run.message
  assert "ESCAPED" not in shown
  assert VALUE not in shown
  assert "\n" not in run.message and len(run.message) < 400
  assert run.duration_s <= LIMIT_S + 1.0


def test_nothing_is_left_and_nothing_changed(outcomes, host):
  _, _, unchanged, survivors = outcomes
  assert unchanged
  assert survivors == set()
  for server in host.connections:
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
      server.accept()


def test_limits_are_what_ends_the_endless(outcomes):
  _, found, _, _ = outcomes
  names = ["memory", "spin", "spin_in_c", "catch_everything", "output"]
  for name in [*names, "power", "one_allocation"]:
    assert found[name].error == tool_lib.ToolErrorKind.LIMIT, name


@pytest.mark.parametrize(
  "attempt",
  [attempt for attempt in ATTEMPTS if attempt.control],
  ids=lambda attempt: attempt.name,
)
def test_the_attempts_work_without_a_sandbox(host, attempt):
  """Otherwise it would be easy to hold them."""
  done = subprocess.run(
    [sys.executable, "-c", host.fill(attempt.code)],
    capture_output=True,
    text=True,
    cwd=host.secret.parent,
  )
  host.secret.write_text(VALUE)
  for server in host.connections:  # what this program connected
    server.setblocking(False)
    try:
      while True:
        server.accept()[0].close()
    except BlockingIOError:
      pass
  assert "ESCAPED" in done.stdout, done.stderr
