"""Runs model-written Python as CPython in a jail made by bubblewrap.

Flow: per program one `bwrap` process: new user, mount, pid, network, IPC, UTS
and cgroup namespaces, an all read-only root with nothing in it but the C
library, the interpreter and the packages, a small tmpfs as scratch, an empty
environment, no capabilities, a seccomp allow-list (tools/seccomp.py). Inside,
tools/sandbox_guest.py limits itself, says "ready" and runs the program that
came on stdin. Output comes back through a pipe that is read up to a limit.

The pid namespace ends with its first process, which dies with bwrap, which
dies with the thread that started it: nothing survives a program or a crash of
ours. For its first milliseconds that first process waits for bwrap without
being bound to it, so a kill goes to their whole process group; only a SIGKILL
to us in that moment leaves it behind, waiting, with no program in it.

Time counts from "ready", so a slow host is not the program's fault, and a jail
that never gets there is a host failure, which no program can fake.

Processes and threads are limited by the kernel, except where it does not count
(for the host's root, and before Linux 5.14). So they are counted from here too,
20 times a second, and a jail with too many ends: a bomb has that long.

What this does not cover: a bug in the kernel. Memory is limited by address
space (the limit plus room for libraries) and by the size of the scratch.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import (
  process_tree,
  sandbox_guest,
  sandbox_program,
  seccomp,
)
from agentflow_jax.tools import sandbox as sandbox_lib
from agentflow_jax.tools import text as text_lib

_REMEDY = (
  "install bubblewrap (`apt-get install bubblewrap`) and allow user "
  "namespaces, or set tools.python_sandbox=monty"
)
_STARTUP_S = 30.0  # until "ready", on a machine that does many things at once
_END_S = 5.0  # until a killed jail is gone
_COUNT_S = 0.05  # between two counts of a jail's processes and threads
# Address space that interpreter, numpy and sympy take before a program starts.
_LIBRARIES_MB = 320
_SCRATCH_BYTES = 64 << 20
_READ_BYTES = 1 << 16
_MAX_ERROR_BYTES = 1 << 16
_PACKAGES = ("numpy", "sympy", "mpmath")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_JAIL = (
  *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net"),
  *("--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"),
  *("--new-session", "--uid", "65534", "--gid", "65534"),
  *("--hostname", "sandbox", "--cap-drop", "ALL", "--clearenv"),
  *("--setenv", "PYTHONHASHSEED", "0", "--setenv", "HOME", "/tmp"),
  *("--setenv", "LD_LIBRARY_PATH", "/python/lib"),
  *("--setenv", "OPENBLAS_NUM_THREADS", "1"),
  *("--setenv", "OMP_NUM_THREADS", "1", "--setenv", "LANG", "C.UTF-8"),
)


class JailedProgram(sandbox_program.Program):
  """A program in a jail; its process id is that of bwrap."""

  def send_kill(self, pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)


class BubblewrapSandbox(sandbox_lib.Sandbox[JailedProgram]):
  """One jail per program; nothing is kept between programs."""

  modules = "the standard library"
  missing = ""
  style = ""

  def __init__(self, limits: sandbox_lib.Limits | None = None):
    """Looks for what the jail is made of; no process is started yet.

    Raises:
      UserError: bubblewrap is not installed.
    """
    super().__init__(limits or sandbox_lib.Limits())
    found = [name for name in ("numpy", "sympy") if _package(name)]
    if found:
      self.modules = f"{self.modules}, {' and '.join(found)}"
    absent = [name for name in ("numpy", "sympy") if name not in found]
    self.missing = f"no {', '.join([*absent, 'pandas'])}"
    bwrap = shutil.which("bwrap")
    if bwrap is None:
      raise self._refusal("there is no bwrap on the PATH")
    self._command = [bwrap, *_JAIL, *_root()]
    self._filter = seccomp.filter_program()
    if self._filter is None:
      logging.warning("no system call filter for %s", platform.machine())

  def _refusal(self, reason: str) -> errors.UserError:
    return sandbox_lib.does_not_work(reason, _REMEDY)

  def _new_program(self, code: str) -> JailedProgram:
    return JailedProgram(code)

  def _run_blocking(self, program: JailedProgram) -> sandbox_lib.SandboxRun:
    program.raise_if_cancelled()
    try:
      with tempfile.TemporaryFile() as source:
        source.write(program.code.encode("utf-8", "replace"))
        source.seek(0)
        jail = _Jail(self._start, source, program)
      with jail:
        program.attach(jail.pid)
        ended = jail.wait(self._limits.timeout_s)
    except OSError as error:
      raise errors.ToolHostError(f"the sandbox failed: {error}") from error
    program.raise_if_cancelled()
    return dataclasses.replace(
      self._result(jail, ended), duration_s=jail.duration_s
    )

  def _start(self, source, ready: int) -> subprocess.Popen:
    """Starts bwrap; `source` becomes stdin, `ready` is inherited."""
    limits = (
      (self._limits.memory_mb + _LIBRARIES_MB) << 20,
      math.ceil(self._limits.timeout_s) + 1,
      _SCRATCH_BYTES,
      ready,
    )
    inner = [
      *("/python/bin/python3", "-s", "-S", "-B", "-P", "/guest.py"),
      *map(str, limits),
    ]
    with tempfile.TemporaryFile() as rules:
      options: list[str] = []
      if self._filter is not None:
        rules.write(self._filter)
        rules.seek(0)
        options = ["--seccomp", str(rules.fileno())]
      return subprocess.Popen(
        [*self._command, *options, "--", *inner],
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(ready, rules.fileno()),
        env={},
        process_group=0,
      )

  def _result(self, jail: "_Jail", ended: str) -> sandbox_lib.SandboxRun:
    """What the end means; `ended` is "" if the program ended by itself."""
    complaint = jail.errors_text.strip().rpartition("\n")[2]
    if not jail.ready:
      raise errors.ToolHostError(
        f"the jail did not start: {text_lib.one_line(complaint, 200)}"
      )
    if ended:
      limit = f"time limit of {self._limits.timeout_s:g} s"
      if ended == "output":
        limit = f"output limit of {sandbox_program.MAX_OUTPUT_CHARS} characters"
      if ended == "tasks":
        limit = f"limit of {sandbox_guest.MAX_PROCESSES} processes and threads"
      return sandbox_lib.limit_exceeded(limit)
    if jail.code == 0:
      return sandbox_lib.SandboxRun(output=jail.output_text.rstrip())
    if jail.code == sandbox_guest.EXIT_MEMORY:
      return sandbox_lib.limit_exceeded(
        f"memory limit of {self._limits.memory_mb} MiB"
      )
    if jail.code in (128 + signal.SIGXCPU, 128 + signal.SIGKILL):
      return sandbox_lib.limit_exceeded(
        f"time limit of {self._limits.timeout_s:g} s"
      )
    if jail.code > 128:
      complaint = f"the program died of signal {jail.code - 128}"
    message = text_lib.one_line(complaint, sandbox_lib.MAX_MESSAGE_CHARS)
    return sandbox_lib.SandboxRun(
      error=tool_lib.ToolErrorKind.EXECUTION,
      message=message or f"the program ended with code {jail.code}",
    )


class _Jail:
  """One running bwrap and what came out of it."""

  def __init__(self, start, source, program: JailedProgram):
    self._program = program
    self._read_ready, write_ready = os.pipe()
    try:
      self._process: subprocess.Popen = start(source, write_ready)
    except BaseException:
      os.close(self._read_ready)
      raise
    finally:
      os.close(write_ready)
    self.ready = False
    self.duration_s = 0.0  # from "ready" until nothing of it was left
    self._ready_s = 0.0
    self._output = bytearray()
    self._errors = bytearray()

  @property
  def pid(self) -> int:
    return self._process.pid

  @property
  def code(self) -> int:
    return self._process.returncode

  @property
  def output_text(self) -> str:
    return self._output.decode("utf-8", "replace")

  @property
  def errors_text(self) -> str:
    return self._errors.decode("utf-8", "replace")

  def __enter__(self) -> "_Jail":
    return self

  def __exit__(self, *exc_info) -> None:
    """Kills what is left, and returns when it is gone."""
    try:
      if self._process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
          self._program.send_kill(self.pid)
      # The pipes close when the last process of the jail has died.
      self._drain(time.monotonic() + _END_S, keep=False)
      self._program.detach()
      self._process.wait(_END_S)
      self.duration_s = time.monotonic() - self._ready_s
    finally:
      os.close(self._read_ready)
      for pipe in (self._process.stdout, self._process.stderr):
        if pipe is not None:
          pipe.close()

  def wait(self, timeout_s: float) -> str:
    """Until the end: "" by itself, else "time", "output" or "tasks"."""
    ended = self._drain(time.monotonic() + _STARTUP_S, until_ready=True)
    if not self.ready:
      return ended
    ended = self._drain(time.monotonic() + timeout_s, count=True)
    if not ended:
      self._process.wait(_END_S)
      self._program.detach()
    return ended

  def _drain(
    self,
    end_s: float,
    *,
    until_ready: bool = False,
    keep: bool = True,
    count: bool = False,
  ) -> str:
    """Reads until everything is closed; else what `wait` calls the limit."""
    count_s = time.monotonic() + _COUNT_S if count else math.inf
    with selectors.DefaultSelector() as selector:
      for pipe in (self._process.stdout, self._process.stderr):
        if pipe is not None and not pipe.closed:
          selector.register(pipe, selectors.EVENT_READ)
      if until_ready:
        selector.register(self._read_ready, selectors.EVENT_READ)
      while selector.get_map():
        now_s = time.monotonic()
        if now_s >= end_s:
          return "time"
        if now_s >= count_s:
          if self._crowded():
            return "tasks"
          count_s = time.monotonic() + _COUNT_S
        events = selector.select(max(0.0, min(end_s, count_s) - now_s))
        for key, _ in events:
          data = os.read(key.fd, _READ_BYTES)
          if not data:
            selector.unregister(key.fileobj)
          elif key.fd == self._read_ready:
            self.ready, self._ready_s = True, time.monotonic()
            return ""
          if keep and not self._keep(key.fileobj, data):
            return "output"
    return ""

  def _crowded(self) -> bool:
    most = sandbox_guest.MAX_PROCESSES + 1  # and bwrap, outside
    return process_tree.tasks(self.pid, most) > most

  def _keep(self, pipe, data: bytes) -> bool:
    if pipe is self._process.stderr:
      # The last line is the one that counts.
      self._errors += data
      del self._errors[:-_MAX_ERROR_BYTES]
    elif pipe is self._process.stdout:
      self._output += data
    return len(self._output) <= sandbox_program.MAX_OUTPUT_CHARS


def _root() -> Iterator[str]:
  """The file system of the jail, as arguments of bwrap."""
  for name in ("/lib", "/lib64"):
    if os.path.islink(name):
      yield from ("--symlink", os.readlink(name).lstrip("/"), name)
    elif os.path.isdir(name):
      yield from ("--ro-bind", name, name)
  for name in ("/usr/lib", "/usr/lib64"):
    yield from ("--ro-bind-try", name, name)
  python = pathlib.Path(sys.base_prefix)
  binary = python / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
  yield from ("--ro-bind", os.fspath(binary), "/python/bin/python3")
  yield from ("--ro-bind", os.fspath(python / "lib"), "/python/lib")
  for name in _PACKAGES:
    for directory in _package(name):
      yield from (
        "--ro-bind",
        os.fspath(directory),
        f"/packages/{directory.name}",
      )
  yield from ("--ro-bind", str(sandbox_guest.__file__), "/guest.py")
  for name in _DEVICES:
    yield from ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
  yield from ("--size", str(_SCRATCH_BYTES), "--tmpfs", "/tmp")
  yield from ("--chdir", "/tmp", "--remount-ro", "/")


def _package(name: str) -> list[pathlib.Path]:
  """The directories of an installed package, with its bundled libraries."""
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.submodule_search_locations:
    return []
  package = pathlib.Path(next(iter(spec.submodule_search_locations)))
  libraries = package.with_name(f"{name}.libs")
  return [package, libraries] if libraries.is_dir() else [package]
