"""Both sandboxes against programs that want out (sandbox_attempts.py)."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
import sandbox_attempts
import sandbox_controls as controls
import sandbox_runner

from agentflow_jax.core import tool as tool_lib

LIMIT_S = 0.5
MEMORY_MB = 64
PROCESSES = 4  # that run attempts, each one after the other
CANARY = "AGENTFLOW_CANARY_KEY"
VALUE = "canary-41d1c0ffee"
ATTEMPTS = sandbox_attempts.attempts()
_REPOSITORY = pathlib.Path(__file__).parents[2]


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


def _start(kind: str, programs: dict[str, str]) -> subprocess.Popen:
  """A process that runs them, see sandbox_runner.py."""
  runner = subprocess.Popen(
    [sys.executable, sandbox_runner.__file__, kind],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"PYTHONPATH": str(_REPOSITORY)},
  )
  limits = {"timeout_s": LIMIT_S, "memory_mb": MEMORY_MB}
  assert runner.stdin is not None
  runner.stdin.write(json.dumps({"limits": limits, "programs": programs}))
  runner.stdin.close()
  runner.stdin = None
  return runner


def _results(runner: subprocess.Popen) -> dict[str, dict]:
  """What came of each program by its name, "" for the end; or a skip."""
  out, err = runner.communicate(timeout=500)
  first, *lines = map(json.loads, out.splitlines())
  if "missing" in first:
    pytest.skip(first["missing"])
  assert runner.returncode == 0, err[-3000:]
  results = {line["name"]: line for line in lines}
  for result in results.values():
    result["startup_s"] = first["startup_s"]
  return results


@pytest.fixture(scope="module", params=["bubblewrap", "monty"])
def outcomes(request, host):
  """Every attempt once, by name; and in the end nothing has changed."""
  files = host.digest()
  programs = {a.name: host.fill(a.code) for a in ATTEMPTS}
  names = list(programs)
  parts = [names[n::PROCESSES] for n in range(PROCESSES)]
  started = [
    _start(request.param, {name: programs[name] for name in part})
    for part in parts
  ]
  found = [_results(runner) for runner in started]
  for part, results in zip(parts, found, strict=True):
    assert [*part, ""] == list(results)
  assert host.digest() == files
  ends = [result["left"] for results in found for result in [results.pop("")]]
  return {name: r for results in found for name, r in results.items()}, ends


def test_there_are_enough_attempts():
  assert len(ATTEMPTS) >= 60
  assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)


def test_every_attempt_is_checked_without_a_sandbox_or_says_why():
  groups = [
    *(controls.PRINTS, controls.DEPENDS, controls.ENDLESS, controls.ENDS),
    *(controls.CHANGES_FILES, controls.CONNECTS, controls.LEAVES_A_PROCESS),
    controls.NOT_RUN,
  ]
  names = [name for group in groups for name in group]
  assert sorted(names) == sorted(attempt.name for attempt in ATTEMPTS)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_no_attempt_gets_out(outcomes, attempt):
  run = outcomes[0][attempt.name]
  assert "ESCAPED" not in run["shown"]
  assert VALUE not in run["shown"]
  assert "\n" not in run["message"] and len(run["message"]) < 400
  assert run["left"] == []
  assert run["duration_s"] <= LIMIT_S + 1.0
  # The sandbox's clock begins when a program does. Ours also counts what comes
  # before, which a busy machine makes longer than it was at rest.
  assert run["took_s"] <= LIMIT_S + 1.0 + max(2.0, 3 * run["startup_s"])


def test_nothing_is_left_and_nobody_was_reached(outcomes, host):
  assert outcomes[1] == [[]] * PROCESSES
  assert _accepted(host) == 0


def test_limits_are_what_ends_the_endless(outcomes):
  names = ["memory", "spin", "spin_in_c", "catch_everything", "output"]
  for name in [*names, "power", "one_allocation"]:
    assert outcomes[0][name]["error"] == tool_lib.ToolErrorKind.LIMIT, name


def test_who_kills_its_parent_kills_nobody(outcomes):
  """A jail that it had ended could not say that it escaped."""
  assert outcomes[0]["kill_parent"]["shown"] == "held"


def _accepted(host) -> int:
  """How many connections wait at the host's servers."""
  count = 0
  for server in host.connections:
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
      while True:
        server.accept()[0].close()
        count += 1
  return count


@pytest.fixture
def free(host):
  """Runs an attempt in plain CPython; what it did is undone."""
  inherited = os.open(os.devnull, os.O_RDWR)

  def run(name: str) -> subprocess.CompletedProcess:
    (code,) = (a.code for a in ATTEMPTS if a.name == name)
    return subprocess.run(
      # It may end its parent, which is a shell that waits for it.
      ["/bin/sh", "-c", '"$@"; true', "sh", sys.executable, "-c"]
      + [host.fill(code)],
      capture_output=True,
      text=True,
      cwd=host.secret.parent,
      pass_fds=(inherited,),
      timeout=60,
    )

  before = set(os.listdir(host.secret.parent))
  yield run
  os.close(inherited)
  host.secret.write_text(VALUE)
  host.secret.chmod(0o600)
  _accepted(host)
  for name in set(os.listdir(host.secret.parent)) - before:
    (host.secret.parent / name).unlink()
  pathlib.Path("/dev/shm/escaped").unlink(missing_ok=True)


@pytest.mark.parametrize("name", sorted(controls.PRINTS))
def test_it_gets_out_of_plain_python(free, name):
  """Otherwise it would be easy to hold."""
  done = free(name)
  assert "ESCAPED" in done.stdout, done.stderr


@pytest.mark.parametrize("name", sorted(controls.DEPENDS))
def test_it_gets_out_of_plain_python_on_some_machines(free, name):
  done = free(name)
  if "ESCAPED" not in done.stdout:
    # Refused by the machine, not broken: an attempt with a slip says more.
    assert done.stdout == "held\n" or "Error: [Errno" in done.stderr, done
    pytest.skip("not on this machine")


def test_others_leave_something_behind(free, host):
  for name in controls.CHANGES_FILES:
    before = host.digest()
    free(name)
    assert host.digest() != before, name
  for name in controls.CONNECTS:
    assert _accepted(host) == 0
    free(name)
    assert _accepted(host), name


@pytest.mark.parametrize("name", sorted(controls.ENDS))
def test_others_only_end(free, name):
  assert "ESCAPED" not in free(name).stdout


def test_a_process_that_is_left_is_seen():
  """One that has no parent any more."""
  programs = {a.name: a.code for a in ATTEMPTS}
  programs = {name: programs[name] for name in controls.LEAVES_A_PROCESS}
  results = _results(_start("none", programs | {"nothing": ""}))
  for name in controls.LEAVES_A_PROCESS:
    (line,) = results[name]["left"]
    assert "fork" in line
  assert results["nothing"]["left"] == results[""]["left"] == []


def test_the_endless_do_not_end_without_a_limit(host):
  running = {}
  try:
    for attempt in ATTEMPTS:
      if attempt.name in controls.ENDLESS:
        code = f"print('begun', flush=True)\n{host.fill(attempt.code)}"
        running[attempt.name] = subprocess.Popen(
          [sys.executable, "-c", code],
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
        )
    for name, process in running.items():
      assert process.stdout.readline() == b"begun\n", name
    time.sleep(LIMIT_S + 1.0)
    assert [n for n, p in running.items() if p.poll() is not None] == []
  finally:
    for process in running.values():
      process.kill()
      process.communicate()
