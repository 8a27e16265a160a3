"""The code sandbox: values, hostile programs, isolation, processes."""

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import monty_sandbox, sandbox_program
from agentflow_jax.tools import sandbox as sandbox_lib

EXECUTION = tool_lib.ToolErrorKind.EXECUTION
LIMIT = tool_lib.ToolErrorKind.LIMIT

_CANARY = "canary-5b1f0c"


@pytest.fixture(scope="module", autouse=True)
def canary():
  os.environ["AGENTFLOW_CANARY"] = _CANARY
  yield
  del os.environ["AGENTFLOW_CANARY"]


@contextlib.contextmanager
def _sandbox(**limits):
  """A sandbox, closed at the end; it must leave no process behind."""
  before = _workers()
  sandbox = monty_sandbox.MontySandbox(sandbox_lib.Limits(**limits))
  try:
    yield sandbox
  finally:
    asyncio.run(sandbox.aclose())
    assert _workers() <= before


@pytest.fixture(scope="module")
def sandbox():
  """So patient that a busy machine never meets the time limit."""
  with _sandbox(timeout_s=300.0) as ready:
    yield ready


@pytest.fixture(scope="module")
def hasty_sandbox():
  with _sandbox(timeout_s=0.3, workers=2) as ready:
    yield ready


def _workers():
  """Process ids of this process's living sandbox workers, of all pools."""
  rows = subprocess.run(
    ["ps", "-axo", "pid=,ppid=,stat=,args="],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.splitlines()
  columns = [row.split(None, 3) for row in rows]
  return {
    int(pid)
    for pid, parent, state, *args in columns
    if int(parent) == os.getpid() and state[0] != "Z" and "monty" in args[0]
  }


async def _until_one_runs(sandbox):
  while not any(program.running for program in sandbox._programs):
    await asyncio.sleep(0.01)


def _run(sandbox, code):
  return asyncio.run(sandbox.run(code))


@pytest.mark.parametrize(
  ("code", "output"),
  [
    ("print(50 + 79)", "129"),
    ("x = 3\nx * 2", "6"),
    ("x = 3; x * 2", ""),
    ("'kip'", "kip"),
    ("print('a')\nprint('b')\n3", "a\nb"),
    ("print('once')\nx = 1", "once"),
    ("for i in range(2): print(i)", "0\n1"),
    ("def f(n):\n  return n + 1\n\nf(1)\n# the end\n", "2"),
    ("sum([\n  1,\n  2,\n])", ""),
    ("print(\n5)", "5"),
    ("f = print\nf(\n5\n)", "5"),
    ("x = 'a' \\\n'b'\nx", "ab"),
    ('"""\n1\n"""', ""),
    ('"""1"""', "1"),
    ("x = [1, 2]\n*x, 3", "(1, 2, 3)"),
    ("import asyncio\nasync def f(): return 4\nawait f()", "4"),
    ("None", ""),
    ("x = 1", ""),
    ("", ""),
    ("# nothing", ""),
    ("import math\nprint(math.comb(5, 2))\r\n", "10"),
    (
      "def fib(n):\n  return n if n < 2 else fib(n-1) + fib(n-2)\nfib(15)",
      "610",
    ),
    ("import math\ndef area(r):\n  return math.floor(r * 3)\narea(2)", "6"),
    ("print('\u00e9\u4e2d\U0001f600')", "\u00e9\u4e2d\U0001f600"),
  ],
)
def test_output_or_else_the_last_value(sandbox, code, output):
  assert _run(sandbox, code) == sandbox_lib.SandboxRun(output=output)


HOSTILE = [
  # Memory.
  ("a = []\nwhile True: a.append('x' * 10**6)", LIMIT, "memory limit of 256"),
  ("a = [0] * 10**9", LIMIT, "memory"),
  ("'x' * 10**10", LIMIT, "memory"),
  ("9**9**9", LIMIT, "memory"),
  ("print(9**9**9)", LIMIT, "memory"),
  ("1 << 10**10", LIMIT, "memory"),
  ("f'{1:1000000000}'", LIMIT, "memory"),
  ("list(range(10**8))", LIMIT, "memory"),
  ("','.join(['x' * 10**6] * 10**4)", LIMIT, "memory"),
  # Output.
  ("print('x' * 10**7)", LIMIT, "output limit of 1048576"),
  ("while True: print('x' * 10000)", LIMIT, "output"),
  ("a = [0] * 300\nb = [a] * 300\n[b] * 300", LIMIT, "output"),
  ("'x' * (2 << 20)", LIMIT, "output"),
  # Sleep.
  ("import time\ntime.sleep(60)", LIMIT, "sleep limit of 1 s"),
  ("import asyncio\nawait asyncio.sleep(60)", LIMIT, "sleep"),
  # Recursion.
  ("def f(n): return f(n + 1)\nf(0)", EXECUTION, "RecursionError"),
  ("(" * 5000 + "1" + ")" * 5000, EXECUTION, "SyntaxError"),
  ("-" * 50000 + "1", EXECUTION, "SyntaxError"),
  # Files.
  ("open('/etc/passwd').read()", EXECUTION, "PermissionError"),
  ("open('escaped.txt', 'w').write('x')", EXECUTION, "PermissionError"),
  ("from pathlib import Path\nPath('/etc/passwd').read_text()", EXECUTION,
   "PermissionError"),
  ("import os\nos.listdir('/')", EXECUTION, "PermissionError"),
  ("open(0).read()", EXECUTION, "TypeError"),
  ("while True:\n  try: open('/x')\n  except Exception: pass", EXECUTION,
   "RuntimeError: suspension limit"),
  # Environment.
  ("import os\nprint(os.environ)", EXECUTION, "os.environ"),
  ("import os\nos.getenv('AGENTFLOW_CANARY')", EXECUTION, "os.getenv"),
  ("from os import environ\nenviron['AGENTFLOW_CANARY']", EXECUTION, "environ"),
  ("open('/proc/self/environ', 'rb').read()", EXECUTION, "PermissionError"),
  # Network and processes.
  ("import socket", EXECUTION, "ModuleNotFoundError"),
  ("import subprocess", EXECUTION, "ModuleNotFoundError"),
  ("import urllib.request", EXECUTION, "ModuleNotFoundError"),
  ("import ctypes", EXECUTION, "ModuleNotFoundError"),
  ("import os\nos.system('id')", EXECUTION, "AttributeError"),
  ("import os\nos.kill(1, 9)", EXECUTION, "AttributeError"),
  ("import os\nos.fork()", EXECUTION, "AttributeError"),
  ("import asyncio\nasyncio.open_connection('127.0.0.1', 80)", EXECUTION,
   "AttributeError"),
  # The way from an object back to the interpreter.
  ("__import__('os')", EXECUTION, "NameError"),
  ("().__class__.__base__.__subclasses__()", EXECUTION, "AttributeError"),
  ("(lambda: 0).__globals__", EXECUTION, "AttributeError"),
  ("print.__self__", EXECUTION, "AttributeError"),
  ("import sys\nsys.modules", EXECUTION, "AttributeError"),
  ("import sys\nsys.setrecursionlimit(10**9)", EXECUTION, "AttributeError"),
  ("compile('1', 'a', 'eval')", EXECUTION, "NameError"),
  ("import pydantic_monty", EXECUTION, "ModuleNotFoundError"),
  ("eval('open(\"/etc/passwd\").read()')", EXECUTION, "PermissionError"),
  # Endings and messages.
  ("input()", EXECUTION, "NameError"),
  ("exit()", EXECUTION, "NameError"),
  ("raise KeyboardInterrupt", EXECUTION, "KeyboardInterrupt"),
  ("raise SystemExit(3)", EXECUTION, ""),
  ("raise ValueError('a\\nb\\n\\tc')", EXECUTION, "ValueError: a b c (line 1)"),
  ("x = 1\n1 / 0", EXECUTION, "ZeroDivisionError: division by zero (line 2)"),
  ("def f(:", EXECUTION, "SyntaxError"),
  ("x = (1 +", EXECUTION, "SyntaxError"),
  ("print(1)\neval('1 +')", EXECUTION, "SyntaxError"),
  ("print(1)\x00", EXECUTION, "SyntaxError"),
  ("print('\ud800')", EXECUTION, "SyntaxError"),
  ("raise ValueError('x' * 10**7)", EXECUTION, "ValueError: xxx"),
  ("x" * 100_001, EXECUTION, "longer than 100000"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "kind", "message"), HOSTILE)
def test_hostile_programs_end_with_a_typed_message(
  sandbox, tmp_path, monkeypatch, code, kind, message
):
  monkeypatch.chdir(tmp_path)
  run = _run(sandbox, code)
  assert run.error == kind, run
  assert message in run.message
  assert "\n" not in run.message
  assert len(run.message) < 400
  shown = run.output + run.message
  assert _CANARY not in shown
  assert str(pathlib.Path.cwd()) not in shown
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "code",
  [
    "while True: pass",
    "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    "sum(range(10**12))",
    "n = 0\nwhile True: n += 1",
    "def f():\n  while True: pass\nf()",
    "class A:\n  def __repr__(self):\n    while True: pass\nA()",
    "import time\nfor _ in range(100): time.sleep(0.05)",
  ],
)
def test_programs_that_do_not_end_are_stopped(hasty_sandbox, code):
  run = _run(hasty_sandbox, code)
  assert run.error == LIMIT
  assert "limit of 0.3 s exceeded" in run.message
  assert _run(hasty_sandbox, "print(1)").output == "1"


def test_recursion_goes_as_deep_as_in_cpython(sandbox):
  code = "def f(n): return n and 1 + f(n - 1)\nf({})"
  assert _run(sandbox, code.format(900)).output == "900"
  assert "RecursionError" in _run(sandbox, code.format(1100)).message


def test_workers_start_with_an_empty_environment(sandbox):
  _run(sandbox, "1")
  for pid in _workers():
    environ = pathlib.Path(f"/proc/{pid}/environ")
    if not environ.exists():
      pytest.skip("no /proc on this system")
    assert environ.read_bytes() == b""


def test_runs_share_nothing_and_repeat_exactly():
  with _sandbox(workers=1) as sandbox:
    assert _run(sandbox, "secret = 42\nsecret").output == "42"
    again = _run(sandbox, "print(secret)")
    assert again.error == EXECUTION and "NameError" in again.message
    draw = "import random\nprint(random.random(), random.randint(0, 10**9))"
    assert _run(sandbox, draw) == _run(sandbox, draw)


@pytest.mark.parametrize(
  ("code", "feeds"),
  [
    ("print(1)", 1),
    ("x = 1", 2),  # parsed as an expression, refused, then run
    ("1 + 1", 2),  # run, then its value printed
    ("print(1)\neval('1 +')", 1),
    ("while", 2),
    ("x = 1; [x]", 2),
  ],
)
def test_a_program_is_run_once(monkeypatch, code, feeds):
  """The program text is fed again only if it did not even parse.

  No value crosses to this process: it could be of any size and shape.
  """
  fed = []

  class Recorder:
    def __init__(self, session):
      self.worker_pid = session.worker_pid
      self._session = session

    def feed_run(self, text, **kwargs):
      fed.append(text)
      assert self._session.feed_run(text, **kwargs) is None

  with _sandbox(workers=1) as sandbox:
    checkout = sandbox._checkout

    @contextlib.contextmanager
    def recording():
      with checkout() as session:
        yield Recorder(session)

    monkeypatch.setattr(sandbox, "_checkout", recording)
    _run(sandbox, code)
  assert len(fed) == feeds


def test_concurrent_runs_are_bounded_and_do_not_mix():
  async def everything(sandbox):
    runs = [sandbox.run(f"print({i} * 7)") for i in range(64)]
    return await asyncio.gather(*runs)

  before = _workers()
  with _sandbox(workers=3) as sandbox:
    outputs = [run.output for run in asyncio.run(everything(sandbox))]
    assert outputs == [str(i * 7) for i in range(64)]
    assert 1 <= len(_workers() - before) <= 3


@pytest.mark.timeout(60)
def test_a_cancelled_run_gives_its_worker_back():
  """The only worker would be busy for an hour if it were not killed."""

  async def cancel_two(sandbox):
    first = asyncio.create_task(sandbox.run("while True: pass"))
    await _until_one_runs(sandbox)
    queued = asyncio.create_task(sandbox.run("while True: pass"))
    await asyncio.sleep(0)
    queued.cancel()
    first.cancel()
    outcomes = await asyncio.gather(first, queued, return_exceptions=True)
    assert all(isinstance(o, asyncio.CancelledError) for o in outcomes)
    return await sandbox.run("print('free')")

  with _sandbox(timeout_s=3600.0, workers=1) as sandbox:
    assert asyncio.run(cancel_two(sandbox)).output == "free"


def test_a_finished_program_can_not_kill_its_old_worker(sandbox, monkeypatch):
  program = sandbox_program.MontyProgram("1 + 1")
  assert sandbox._run_blocking(program).output == "2"
  assert not program.running
  killed = []
  monkeypatch.setattr(os, "kill", lambda pid, sign: killed.append(pid))
  program.cancel()
  assert killed == []


@pytest.mark.timeout(60)
def test_closing_ends_running_and_waiting_programs():
  async def close_under_load(sandbox):
    runs = [
      asyncio.create_task(sandbox.run("while True: pass")) for _ in range(5)
    ]
    await _until_one_runs(sandbox)
    await sandbox.aclose()
    return await asyncio.gather(*runs, return_exceptions=True)

  before = _workers()
  with _sandbox(timeout_s=3600.0, workers=2) as sandbox:
    outcomes = asyncio.run(close_under_load(sandbox))
    assert [type(o) for o in outcomes] == [errors.ToolHostError] * 5
    assert _workers() <= before
    with pytest.raises(errors.ToolHostError, match="closed"):
      _run(sandbox, "1")


@pytest.mark.timeout(60)
def test_a_dead_worker_is_a_host_error_and_is_replaced():
  before = _workers()

  async def kill_the_worker(sandbox):
    run = asyncio.create_task(sandbox.run("while True: pass"))
    await _until_one_runs(sandbox)
    for pid in _workers() - before:
      os.kill(pid, signal.SIGKILL)
    await run

  with _sandbox(timeout_s=3600.0, workers=1) as sandbox:
    with pytest.raises(errors.ToolHostError, match="worker died"):
      asyncio.run(kill_the_worker(sandbox))
    assert _run(sandbox, "print('back')").output == "back"


def test_check_runs_a_program(sandbox):
  asyncio.run(sandbox.check())


def test_check_refuses_a_sandbox_that_computes_nonsense(sandbox, monkeypatch):
  async def nonsense(code):
    return sandbox_lib.SandboxRun(output="41")

  monkeypatch.setattr(sandbox, "run", nonsense)
  with pytest.raises(errors.UserError, match="pip install pydantic-monty"):
    asyncio.run(sandbox.check())


def test_a_missing_package_is_refused_at_once(monkeypatch):
  monkeypatch.setitem(sys.modules, "pydantic_monty", None)
  with pytest.raises(errors.UserError, match="pip install pydantic-monty"):
    monty_sandbox.MontySandbox()


def test_a_missing_binary_is_refused_by_check(monkeypatch):
  monkeypatch.setenv("MONTY_BIN", "/nonexistent/monty")
  with pytest.raises(errors.UserError, match="pip install pydantic-monty"):
    asyncio.run(monty_sandbox.MontySandbox().check())


def test_limits_must_be_positive():
  for limits in ({"timeout_s": 0}, {"memory_mb": -1}, {"workers": -1}):
    with pytest.raises(errors.ConfigError, match="positive"):
      sandbox_lib.Limits(**limits)


@pytest.mark.parametrize("ending", ["await s.aclose()", "pass"])
def test_the_process_ends_cleanly(ending):
  """No abort at exit and no worker left, closed or not."""
  program = f"""
import asyncio, sys
from agentflow_jax.tools import monty_sandbox, sandbox
async def main():
  s = monty_sandbox.MontySandbox(sandbox.Limits(workers=2))
  runs = await asyncio.gather(*[s.run("print(1)") for _ in range(20)])
  assert [run.output for run in runs] == ["1"] * 20
  {ending}
asyncio.run(main())
"""
  for _ in range(3):
    done = subprocess.run(
      [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
