"""What the architecture test looks for, as functions of parsed source files.

Each returns one sentence per violation, naming file, line and remedy.
"""

import ast
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator

PACKAGE = "agentflow_jax"
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

# Design section 3. A package imports from rows above its own, never from its
# own row: two neighbours meet through core and are joined by assembly.
LAYERS = (
  ("core",),
  ("agent", "tools", "rewards", "tasks", "models", "batching"),
  ("sampler", "hf", "learner"),
  ("engines",),
  ("rollout",),
  ("evaluation",),
  ("training",),
  ("assembly",),
  ("experiments",),
  ("testing",),  # fakes, for tests and benchmarks
  ("benchmarks",),
  ("launch", "configs"),
)
# Narrower than its row.
ONLY_FROM = {"configs": {"core"}}

# The agent half: these run where no accelerator stack is installed.
WITHOUT_JAX = (
  "core",
  "agent",
  "engines",
  "tools",
  "rewards",
  "tasks",
  "rollout",
  "evaluation",
)
NEEDS_JAX = ("agentflow_jax.engines.local",)
ACCELERATOR_STACK = frozenset({"jax", "jaxlib", "flax", "optax", "orbax"})

# Broad handlers that have a reason: file -> function.
BROAD_HANDLERS = {
  # A user's tool may raise anything; it is logged, retried and counted.
  "agentflow_jax/agent/tool_calls.py": "_guarded",
  # The doctor tries code of the user's; what that raises is its finding.
  "agentflow_jax/assembly/findings.py": "tried",
  # The Rust binding raises bare Exception for a bad file.
  "agentflow_jax/hf/tokenizer.py": "_backend",
  # The MCP SDK reports a server it can not use as almost anything.
  "agentflow_jax/tools/mcp_tools.py": "_hold",
  # The health check calls a user's function.
  "agentflow_jax/tools/user_tools.py": "check",
  # Whatever a user's function raised is raised where it is waited for.
  "agentflow_jax/tools/call_threads.py": "_call",
}

# Runs a model's program, but only as a process of its own inside the jail:
# whoever imports it may read its constants and its path.
JAILED = "agentflow_jax/tools/sandbox_guest.py"

# The nouns and Protocols that every package speaks: what each is has to be
# plain from its docstring alone.
VOCABULARY = tuple(
  f"{PACKAGE}/core/{name}.py"
  for name in (
    *("engine", "messages", "protocols", "task", "tool", "trajectory"),
  )
)
_EXAMPLE = re.compile(r"^Example:\s+\S", re.MULTILINE)

_MACHINE_PATH = re.compile(
  r"(?<![\w.:/])(/(home|root|Users|mnt|opt|work|workspace|scratch|data)/\w"
  r"|[A-Z]:\\+(Users|Windows|Program))"
)


@dataclasses.dataclass(frozen=True)
class Source:
  """A parsed file; `path` is relative to the project, with slashes."""

  path: str
  text: str

  @functools.cached_property
  def tree(self) -> ast.Module:
    return ast.parse(self.text)

  @property
  def package(self) -> str:
    """core, agent, ..., launch, configs."""
    first, *rest = self.path.split("/")
    return rest[0].removesuffix(".py") if first == PACKAGE else first


def read_sources(root: pathlib.Path, folders: Iterable[str]) -> list[Source]:
  return [
    Source(file.relative_to(root).as_posix(), file.read_text("utf-8"))
    for folder in folders
    for file in sorted((root / folder).rglob("*.py"))
  ]


def imports(source: Source) -> Iterator[tuple[int, str]]:
  """(line, dotted name) of every import, also those inside functions."""
  for node in ast.walk(source.tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        yield node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}"


def upward_imports(source: Source) -> list[str]:
  """Imports of the own row or of one below, relative ones, new packages."""
  rank = {name: row for row, names in enumerate(LAYERS) for name in names}
  own = source.package
  if own == "__init__":
    return []
  if own not in rank:
    return [f"{source.path}: package {own} has no row in LAYERS"]
  found = []
  for line, name in imports(source):
    if name.startswith("."):
      found.append(f"{source.path}:{line}: import {name} by its full name")
    if not name.startswith(f"{PACKAGE}."):
      continue
    other = name.split(".")[1]
    allowed = rank.get(other, len(LAYERS)) < rank[own]
    if own in ONLY_FROM:
      allowed = other in ONLY_FROM[own]
    if other != own and not allowed:
      found.append(
        f"{source.path}:{line}: {own} must not import {other} (LAYERS)"
      )
  return found


def forbidden_imports(
  source: Source, forbidden: Iterable[str], why: str
) -> list[str]:
  return [
    f"{source.path}:{line}: import of {name}: {why}"
    for line, name in imports(source)
    if name.split(".")[0] in forbidden
  ]


def long_files(source: Source) -> list[str]:
  lines = len(source.text.splitlines())
  if lines <= MAX_FILE_LINES:
    return []
  return [f"{source.path} has {lines} lines; split it ({MAX_FILE_LINES})"]


def long_functions(source: Source) -> list[str]:
  """The whole function counts, docstring and decorators not left out."""
  found = []
  for node in _functions(source):
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    lines = (node.end_lineno or first) - first + 1
    if lines > MAX_FUNCTION_LINES:
      found.append(
        f"{source.path}:{node.lineno}: {node.name} has {lines} lines "
        f"({MAX_FUNCTION_LINES})"
      )
  return found


def prints(source: Source) -> list[str]:
  """Calls of print outside launch/."""
  if source.package == "launch":
    return []
  return _calls(source, {"print"}, "use absl.logging")


def code_from_text(source: Source) -> list[str]:
  """Calls that run text as code or as a shell command."""
  if source.path == JAILED:
    return []
  found = _calls(
    source, {"exec", "eval", "compile", "__import__"}, "model text is data"
  )
  for node in ast.walk(source.tree):
    if not isinstance(node, ast.Call):
      continue
    name = ast.unparse(node.func)
    shell = any(
      keyword.arg == "shell"
      and not (
        isinstance(keyword.value, ast.Constant) and keyword.value.value is False
      )
      for keyword in node.keywords
    )
    if shell or name in ("os.system", "os.popen"):
      found.append(f"{source.path}:{node.lineno}: {name} starts a shell")
  return found


def uses_of_jailed(source: Source) -> list[str]:
  """Anything taken from the jailed program but constants and its path."""
  module = pathlib.PurePath(JAILED).stem
  used = [
    (node.lineno, node.attr)
    for node in ast.walk(source.tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == module
    and not (node.attr.isupper() or node.attr == "__file__")
  ]
  # `from ...sandbox_guest import main` would hide the name.
  used += [
    (line, name) for line, name in imports(source) if f".{module}." in name
  ]
  return [f"{source.path}:{line}: {name} runs outside" for line, name in used]


def broad_handlers(source: Source) -> list[str]:
  """`except:`, `except Exception`: unless all it does is clean up and raise."""
  if source.path == JAILED:
    return []
  excused = BROAD_HANDLERS.get(source.path)
  found = []
  for function, node in _handlers(source):
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    names = {ast.unparse(kind) if kind else "everything" for kind in kinds}
    broad = names & {"everything", "Exception", "BaseException"}
    last = node.body[-1]
    passed_on = isinstance(last, ast.Raise) and last.exc is None
    if broad and not passed_on and function != excused:
      found.append(
        f"{source.path}:{node.lineno}: except {broad.pop()} hides bugs; name "
        "the exceptions"
      )
  return found


def classes_without_example(source: Source) -> list[str]:
  """Public classes of a file in VOCABULARY that show no worked example."""
  if source.path not in VOCABULARY:
    return []
  return [
    f"{source.path}:{node.lineno}: {node.name} needs a worked example in its "
    'docstring ("Example: ...")'
    for node in source.tree.body
    if isinstance(node, ast.ClassDef)
    and not node.name.startswith("_")
    and not _EXAMPLE.search(ast.get_docstring(node) or "")
  ]


def machine_paths(source: Source) -> list[str]:
  """Absolute paths that only exist on somebody's machine."""
  return [
    f"{source.path}:{number}: path of one machine: {match[0]}..."
    for number, line in enumerate(source.text.splitlines(), start=1)
    if (match := _MACHINE_PATH.search(line))
  ]


def _functions(
  source: Source,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
  for node in ast.walk(source.tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      yield node


def _handlers(source: Source) -> Iterator[tuple[str, ast.ExceptHandler]]:
  """Every handler, with the innermost function it stands in."""

  def visit(node: ast.AST, function: str):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      function = node.name
    if isinstance(node, ast.ExceptHandler):
      yield function, node
    for child in ast.iter_child_nodes(node):
      yield from visit(child, function)

  yield from visit(source.tree, "")


def _calls(source: Source, names: set[str], why: str) -> list[str]:
  return [
    f"{source.path}:{node.lineno}: {node.func.id}(...): {why}"
    for node in ast.walk(source.tree)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id in names
  ]
