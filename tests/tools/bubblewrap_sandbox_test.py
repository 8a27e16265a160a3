"""The jail: values, packages, endings, and what happens when it is missing."""

import asyncio
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time

import pytest

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bubblewrap_sandbox, seccomp
from agentflow_jax.tools import sandbox as sandbox_lib

EXECUTION = tool_lib.ToolErrorKind.EXECUTION
LIMIT = tool_lib.ToolErrorKind.LIMIT


def _new(**limits):
  return bubblewrap_sandbox.BubblewrapSandbox(sandbox_lib.Limits(**limits))


@pytest.fixture(scope="module")
def sandbox():
  """So patient that a busy machine never meets the time limit."""
  try:
    ready = _new(timeout_s=120.0, workers=2)
    asyncio.run(ready.check())
  except errors.UserError as error:
    pytest.skip(str(error))
  yield ready
  asyncio.run(ready.aclose())


def _run(sandbox, code):
  return asyncio.run(sandbox.run(code))


@pytest.mark.parametrize(
  ("code", "output"),
  [
    ("print(50 + 79)", "129"),
    ("x = 3\nx * 2", "6"),
    ("x = 3; x * 2", "6"),
    ("'kip'", "kip"),
    ("print('a')\n3", "a"),
    ("None", ""),
    ("", ""),
    ("print(\n5)", "5"),
    ("import math\nprint(math.comb(5, 2))\r\n", "10"),
    ("print('\u00e9\u4e2d\U0001f600')", "\u00e9\u4e2d\U0001f600"),
    ("print('\\ud800')", "?"),
    ("import sys\nsys.exit()", ""),
    ("print(__name__)", "__main__"),
    (
      "import dataclasses\n@dataclasses.dataclass\nclass A:\n  x: int\nA(3)",
      "A(x=3)",
    ),
    ("class A(list): pass\ndef g():\n  yield 1\nA(g())", "[1]"),
    ("open('/tmp/a', 'w').write('b')\nopen('/tmp/a').read()", "b"),
  ],
)
def test_output_or_else_the_last_value(sandbox, code, output):
  assert _run(sandbox, code) == sandbox_lib.SandboxRun(output=output)


@pytest.mark.parametrize(
  ("code", "message"),
  [
    ("x = 1\n1 / 0", "ZeroDivisionError: division by zero (line 2)"),
    ("def f(:", "SyntaxError: invalid syntax (line 1)"),
    ("raise ValueError('a\\nb\\n\\tc')", "ValueError: a b c (line 1)"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt (line 1)"),
    ("import ctypes\nctypes.string_at(0)", "the program died of signal 11"),
    ("import os\nos._exit(9)", "the program ended with code 9"),
    ("print(1)\x00", "SyntaxError: source code string cannot contain null"),
    ("input()", "EOFError"),
  ],
)
def test_errors_are_one_line_of_the_program(sandbox, code, message):
  run = _run(sandbox, code)
  assert run.error == EXECUTION
  assert run.message.startswith(message)


@pytest.mark.parametrize(
  ("package", "code", "output"),
  [
    ("numpy", "import numpy\nnumpy.arange(5).sum()", "10"),
    ("sympy", "import sympy\nsympy.integrate('x**2')", "x**3/3"),
  ],
)
def test_packages_that_are_installed_here_work(sandbox, package, code, output):
  pytest.importorskip(package)
  assert package in sandbox.modules
  assert _run(sandbox, code) == sandbox_lib.SandboxRun(output=output)


def test_runs_share_nothing_and_repeat_exactly(sandbox):
  assert _run(sandbox, "open('/tmp/a', 'w').write('b')").output == "1"
  assert "FileNotFoundError" in _run(sandbox, "open('/tmp/a')").message
  draw = "import random\nprint(random.random(), hash('a'))"
  assert _run(sandbox, draw) == _run(sandbox, draw)


def test_a_program_is_run_once(sandbox, monkeypatch):
  starts = []
  start = sandbox._start
  monkeypatch.setattr(
    sandbox, "_start", lambda *args: starts.append(1) or start(*args)
  )
  count = "f = open('/tmp/n', 'a+')\nf.write('.')\nf.seek(0)\n"
  for code in ("f.read()", "print(f.read())", "1 / 0", "x = 1"):
    run = _run(sandbox, count + code)
    assert run.output in (".", "")
  assert len(starts) == 4


@pytest.mark.timeout(60)
def test_a_cancelled_run_gives_its_worker_back():
  async def cancel_two(sandbox):
    first = asyncio.create_task(sandbox.run("while True: pass"))
    while not any(program.running for program in sandbox._programs):
      await asyncio.sleep(0.01)
    queued = asyncio.create_task(sandbox.run("while True: pass"))
    await asyncio.sleep(0)
    queued.cancel()
    first.cancel()
    outcomes = await asyncio.gather(first, queued, return_exceptions=True)
    assert all(isinstance(o, asyncio.CancelledError) for o in outcomes)
    assert (await sandbox.run("print('free')")).output == "free"
    running = asyncio.create_task(sandbox.run("while True: pass"))
    await asyncio.sleep(0.2)
    await sandbox.aclose()
    with pytest.raises(errors.ToolHostError, match="cancelled"):
      await running

  sandbox = _skipped_if_missing(timeout_s=3600.0, workers=1)
  asyncio.run(cancel_two(sandbox))
  with pytest.raises(errors.ToolHostError, match="closed"):
    _run(sandbox, "1")


def _skipped_if_missing(**limits):
  try:
    sandbox = _new(**limits)
    asyncio.run(sandbox.check())
  except errors.UserError as error:
    pytest.skip(str(error))
  return sandbox


def test_no_file_descriptor_is_left():
  sandbox = _skipped_if_missing(timeout_s=5.0, workers=1)
  before = len(os.listdir("/proc/self/fd"))
  for code in ("print(1)", "1 / 0", "print('x' * 10**7)"):
    _run(sandbox, code)
  assert len(os.listdir("/proc/self/fd")) == before
  asyncio.run(sandbox.aclose())


@pytest.mark.timeout(60)
def test_the_jail_dies_with_us():
  """Even if we are killed and can not clean up."""
  _skipped_if_missing(timeout_s=5.0, workers=1)
  mark = f"mark{os.getpid()}"
  program = f"""
import asyncio
from agentflow_jax.tools import bubblewrap_sandbox as b, sandbox
box = b.BubblewrapSandbox(sandbox.Limits(timeout_s=600.0, workers=1))
box._command += ["--setenv", "MARK", "{mark}"]
asyncio.run(box.run("while True: pass"))
"""

  process = subprocess.Popen([sys.executable, "-c", program])
  while not _marked(mark):
    assert process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.wait()
  end_s = time.monotonic() + 10
  while _marked(mark) and time.monotonic() < end_s:
    time.sleep(0.05)
  assert _marked(mark) == 0


def test_a_missing_bwrap_is_refused_at_once(monkeypatch):
  monkeypatch.setenv("PATH", "/nonexistent")
  with pytest.raises(errors.UserError) as caught:
    _new()
  assert "apt-get install bubblewrap" in str(caught.value)
  assert "tools.python_sandbox=monty" in str(caught.value)
  assert "\n" not in str(caught.value)


def _fake_bwrap(tmp_path, monkeypatch, script):
  path = tmp_path / "bwrap"
  path.write_text(f"#!/bin/sh\n{script}\n")
  path.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_a_kernel_that_forbids_namespaces_is_refused(tmp_path, monkeypatch):
  _fake_bwrap(
    tmp_path,
    monkeypatch,
    "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
  )
  sandbox = _new(workers=1)
  with pytest.raises(errors.ToolHostError, match="did not start"):
    _run(sandbox, "print(42)")
  with pytest.raises(errors.UserError, match="No permissions to create new"):
    asyncio.run(sandbox.check())
  asyncio.run(sandbox.aclose())


def test_a_jail_that_only_pretends_is_a_host_failure(tmp_path, monkeypatch):
  """Nothing said "ready", so what was printed is not the program's."""
  _fake_bwrap(tmp_path, monkeypatch, "echo 42")
  sandbox = _new(workers=1)
  with pytest.raises(errors.UserError, match="does not work"):
    asyncio.run(sandbox.check())
  asyncio.run(sandbox.aclose())


@pytest.mark.timeout(60)
def test_a_jail_cancelled_while_it_starts_leaves_nothing(tmp_path, monkeypatch):
  """As bwrap in its first moments: a child that would outlive it."""
  pid_file = tmp_path / "pid"
  _fake_bwrap(tmp_path, monkeypatch, f"sleep 1000 & echo $! > {pid_file}; wait")
  sandbox = _new(workers=1)

  async def cancel_it():
    run = asyncio.create_task(sandbox.run("1"))
    while not pid_file.exists() or not pid_file.read_text().strip():
      await asyncio.sleep(0.01)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sandbox.aclose()

  asyncio.run(cancel_it())
  stat = pathlib.Path(f"/proc/{pid_file.read_text().strip()}/stat")
  assert not stat.exists() or stat.read_text().split()[2] == "Z"


_NUMBERS = {
  "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "__NR_"),
  "aarch64": ("/usr/include/asm-generic/unistd.h", "__NR_"),
}


@pytest.mark.parametrize("machine", sorted(_NUMBERS))
def test_the_filters_numbers_are_those_of_the_kernel(machine):
  path, prefix = _NUMBERS[machine]
  if not os.path.exists(path):
    pytest.skip(f"no kernel headers at {path}")
  numbers = {}
  for line in pathlib.Path(path).read_text().splitlines():
    words = line.split()
    if len(words) >= 3 and words[0] == "#define" and words[2].isdigit():
      name = words[1].replace("__NR3264_", prefix).removeprefix(prefix)
      numbers.setdefault(name, int(words[2]))
  numbers.setdefault("newfstatat", numbers.get("fstatat"))
  for name, number in seccomp.allowed(machine).items():
    assert numbers[name] == number, name


def test_the_filter_is_a_whole_program():
  for machine in _NUMBERS:
    program = seccomp.filter_program(machine)
    assert program is not None
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert len(instructions) < 4096  # the kernel's limit
    for index, (code, then, otherwise, _) in enumerate(instructions):
      if code & 0x07 == 0x05:  # every jump lands inside
        assert index + 1 + max(then, otherwise) < len(instructions)
    assert instructions[-1][0] == 0x06
    names = seccomp.allowed(machine)
    assert not names.keys() & {"socket", "clone", "fork", "mount", "ptrace"}
  assert seccomp.filter_program("pdp11") is None


_LIMIT = "limit of 64 processes and threads exceeded"
# Each is a bomb with an end, so that a jail without a limit fails a test and
# not the machine.
_BOMBS = {
  "threads": """
import threading, time
threading.stack_size(32768)
for _ in range(1000):
  threading.Thread(target=time.sleep, args=(99,)).start()
  time.sleep(0.0005)
""",
  "forks": """
import os, time
for _ in range(500):
  if os.fork() == 0: time.sleep(99)
  time.sleep(0.001)
""",
  "doubling": """
import os, time
for _ in range(9): os.fork()
time.sleep(99)
""",
  "orphans": """
import os, time
for _ in range(300):
  if os.fork() == 0:
    if os.fork() == 0:
      os.setsid()
      time.sleep(99)
    os._exit(0)
  os.wait()
""",
}


def _marked(mark):
  """Processes with that in their environment."""
  found = 0
  for entry in pathlib.Path("/proc").iterdir():
    if entry.name.isdigit():
      try:
        found += mark.encode() in (entry / "environ").read_bytes()
      except OSError:
        continue
  return found


@pytest.mark.parametrize("name", sorted(_BOMBS))
def test_a_bomb_ends_in_time_and_leaves_nothing(monkeypatch, name):
  """Where no system call is forbidden, and, for root, no limit is kept."""
  timeout_s = 10.0
  sandbox = _skipped_if_missing(timeout_s=timeout_s, workers=1)
  monkeypatch.setattr(sandbox, "_filter", None)
  mark = f"bomb{os.getpid()}{name}"
  sandbox._command += ["--setenv", "MARK", mark]
  started_s = time.monotonic()
  run = _run(sandbox, _BOMBS[name])
  assert time.monotonic() - started_s < timeout_s + 1.0
  assert _marked(mark) == 0
  if os.getuid() == 0:
    assert (run.error, run.message) == (LIMIT, _LIMIT)
  else:  # it is told, or counted: both end it
    assert run.error in (EXECUTION, LIMIT)
  asyncio.run(sandbox.aclose())


def test_the_kernel_is_told_the_limit_of_processes(sandbox):
  version = tuple(map(int, os.uname().release.split(".")[:2]))
  if version < (5, 14):
    pytest.skip("the kernel counts processes by user, not by jail")
  code = "import resource\nresource.getrlimit(resource.RLIMIT_NPROC)[0]"
  assert _run(sandbox, code) == sandbox_lib.SandboxRun(output="64")


def test_as_many_threads_as_are_allowed_run(sandbox):
  code = """
import threading, time
threading.stack_size(32768)
for _ in range(50): threading.Thread(target=time.sleep, args=(0.3,)).start()
print(threading.active_count())
"""
  assert _run(sandbox, code) == sandbox_lib.SandboxRun(output="51")


def test_a_fork_is_forbidden_where_system_calls_are(sandbox):
  if sandbox._filter is None:
    pytest.skip("nobody wrote down this machine's system calls")
  assert _run(sandbox, _BOMBS["forks"]).message.startswith("PermissionError")
