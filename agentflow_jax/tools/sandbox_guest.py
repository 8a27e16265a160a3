"""Runs one program inside the bubblewrap jail; started by path, never imported.

Flow: read the program from stdin -> put limits on this very process -> say
"ready" on a pipe -> run the program once -> exit code. Everything after
"ready" is the program's word and is believed no more than the program: its
output is its output, its exit code only decides between two ways to have
failed. Uses the standard library only and nothing of the package.

Arguments: address space in bytes, CPU seconds, file size in bytes, ready pipe.
"""

import ast
import io
import os
import random
import resource
import sys
import traceback
import types

EXIT_MEMORY = 77
EXIT_RAISED = 1
_NAME = "<program>"
_MAX_OPEN_FILES = 64
# Processes and threads. Our host side counts them too, for want of the kernel.
MAX_PROCESSES = 64


class _Output(io.TextIOWrapper):
  """stdout that knows whether anything was written."""

  wrote = False

  def write(self, text: str) -> int:
    self.wrote = True
    return super().write(text)


def main() -> int:
  memory, cpu_s, file_size, ready = map(int, sys.argv[1:])
  code = sys.stdin.buffer.read().decode("utf-8", "replace")
  nothing = os.open("/dev/null", os.O_RDONLY)
  os.dup2(nothing, 0)
  os.close(nothing)
  sys.path.append("/packages")
  sys.argv[1:] = []
  random.seed(0)  # the same program gives the same output in every run
  output = _Output(sys.stdout.buffer, "utf-8", errors="replace")
  sys.stdout = output
  # A module the interpreter keeps alive for us may be replaced by the program.
  module = types.ModuleType("__main__")
  sys.modules["__main__"] = module
  for limit, value in (
    (resource.RLIMIT_AS, memory),
    (resource.RLIMIT_CPU, cpu_s),
    (resource.RLIMIT_FSIZE, file_size),
    (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    (resource.RLIMIT_CORE, 0),
    *_process_limit(),
  ):
    resource.setrlimit(limit, (value, value))
  os.write(ready, b"1")
  os.close(ready)
  try:
    _run(code, module.__dict__, output)
    output.flush()
  except SystemExit as error:
    if error.code in (None, 0):
      return 0
    _say("SystemExit", error.code, None)
    return EXIT_RAISED
  except MemoryError:
    return EXIT_MEMORY
  except BaseException as error:  # noqa: BLE001 whatever the program raised
    _say(type(error).__name__, error, error)
    return EXIT_RAISED
  return 0


def _process_limit() -> list[tuple[int, int]]:
  """The limit of processes, if it is one of this jail.

  Since Linux 5.14 it counts those of the user in this user namespace. Before,
  it counted all of the host's user, so that a busy host would have failed every
  program. The kernel exempts the host's root, and so whoever runs as root.
  """
  version = os.uname().release.split(".")
  try:
    counts_here = (int(version[0]), int(version[1])) >= (5, 14)
  except (IndexError, ValueError):
    return []
  return [(resource.RLIMIT_NPROC, MAX_PROCESSES)] if counts_here else []


def _run(code: str, names: dict, output: _Output) -> None:
  """Runs all of it, then prints the last expression if nothing was printed."""
  tree = ast.parse(code, _NAME)
  last = None
  if tree.body and isinstance(end := tree.body[-1], ast.Expr):
    tree.body.pop()
    last = compile(ast.Expression(end.value), _NAME, "eval")
  exec(compile(tree, _NAME, "exec"), names)
  if last is not None:
    value = eval(last, names)
    if value is not None and not output.wrote:
      output.write(f"{value}\n")


def _say(name: str, text: object, error: BaseException | None) -> None:
  """One line on stderr: what was raised, and where in the program."""
  line = getattr(error, "lineno", None)
  if error is not None:
    for frame in traceback.extract_tb(error.__traceback__):
      if frame.filename == _NAME:
        line = frame.lineno
    if isinstance(error, SyntaxError):
      text = error.msg
  shown = " ".join(f"{name}: {text}"[:2000].split()).removesuffix(":")
  where = "" if line is None else f" (line {line})"
  os.write(2, f"{shown[:400]}{where}\n".encode("utf-8", "replace"))


if __name__ == "__main__":
  sys.exit(main())
