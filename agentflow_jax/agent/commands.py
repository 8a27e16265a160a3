"""The executor's text, read into calls with literal arguments.

The executor writes Python because language models write it well:

  ```python
  execution = tool.execute(query="height of Mont Blanc")
  ```

It is read with `ast` and never evaluated. Any number of calls, any variable
names, several lines, with or without a fence, arguments given by names that
were set to literals before. JSON (`{"arguments": {...}}`, a list of such, or
`{"command": "..."}`) is read as well.

What this does not do: run loops, f-strings or any other expression. A call
whose arguments are not literals is a `ParseFailure` in its place, so that the
calls beside it keep their results.
"""

import ast
import json
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from agentflow_jax.agent import lenient_json, quoting
from agentflow_jax.core import trajectory as trajectory_lib

Arguments = dict[str, Any]

# Calls read from one command; a limit on calls per turn must be below it.
MAX_CALLS = 64

# Bounds on hostile text; `ast` is slow and its trees are large.
_MAX_CHARS = 100_000
_MAX_BLOCK_CHARS = 4_000
_MAX_CALL_CHARS = 8_000
_MAX_DEPTH = 16
_MAX_INT = 2**63

_JSON_START = re.compile(r"\s*+(?:```[\w+-]*+\s*+)?[{\[]")
_CALL = re.compile(r"\bexecute[ \t]*\(")
_UNPRINTABLE = re.compile(r"[\x7f-\xa0\u2028\u2029]")
_QUOTE = re.compile(r"\"\"\"|'''|\"|'")
_STOPS = re.compile(r"[\"'()\[\]{}#]")


class _NotLiteral(ValueError):
  """Raised and caught in this file only."""


def parse_command(
  text: str,
) -> (
  list[Arguments | trajectory_lib.ParseFailure] | trajectory_lib.ParseFailure
):
  """The calls in `text`, in the order written, at most `MAX_CALLS`.

  Each is a dict of JSON-like values (str, int, float, bool, None, list, dict),
  or a ParseFailure that says why this one could not be read. Never raises.

  Example: 'execution = tool.execute(query="Laos")' is [{"query": "Laos"}].
  """
  text = text[:_MAX_CHARS].replace("\r\n", "\n")
  readers = [_python_calls, _json_calls]
  if _JSON_START.match(text):
    readers.reverse()
  for reader in readers:
    if calls := reader(text):
      return calls[:MAX_CALLS]
  return trajectory_lib.ParseFailure(reason="no tool.execute(...) call")


def render_call(arguments: Mapping[str, Any]) -> str:
  """One line that `parse_command` reads back as `arguments`."""
  return f"tool.execute({', '.join(map(_keyword, arguments.items()))})"


def _keyword(item: tuple[str, Any]) -> str:
  name, value = item
  # In double quotes, as the prompts show it. What JSON leaves alone and some
  # reader takes for a line break (U+0085, U+2028) is escaped as well.
  if isinstance(value, str):
    quoted = json.dumps(value, ensure_ascii=False)
    return f"{name}={_UNPRINTABLE.sub(_escaped, quoted)}"
  return f"{name}={value!r}"


def _escaped(match: re.Match) -> str:
  return match.group().encode("unicode_escape").decode("ascii")


def _json_calls(text: str) -> list[Arguments | trajectory_lib.ParseFailure]:
  for value in lenient_json.find_values(text):
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, dict) for item in items):
      continue
    if all("arguments" in item for item in items):
      return [read_arguments(item["arguments"]) for item in items]
    command = items[0].get("command")
    if len(items) == 1 and isinstance(command, str):
      return _python_calls(command.replace("\r\n", "\n"))
  return []


def read_arguments(arguments: Any) -> Arguments | trajectory_lib.ParseFailure:
  """Checks a JSON value that should be the arguments of a call."""
  if not isinstance(arguments, dict):
    return trajectory_lib.ParseFailure(reason="arguments is not an object")
  try:
    return {quoting.scrub(k): _plain(v) for k, v in arguments.items()}
  except _NotLiteral as error:
    return trajectory_lib.ParseFailure(reason=str(error))


def _python_calls(text: str) -> list[Arguments | trajectory_lib.ParseFailure]:
  """Calls of the fenced blocks, or of the whole text if there is none."""
  blocks = [
    body
    for match in lenient_json.FENCE.finditer(text)
    if _CALL.search(body := match["body"])
  ]
  calls = []
  budget = _MAX_BLOCK_CHARS
  for block in blocks or [text] * bool(_CALL.search(text)):
    budget -= len(block)
    tree = _tree(block) if budget >= 0 else None
    if tree is None:
      # Prose around a bare call, a cut-off command, a fence inside a string.
      fence = lenient_json.FENCE.search(text)
      return list(_scanned_calls(text, fence.start("body") if fence else 0))
    calls += _tree_calls(tree)
  return calls


def _tree(source: str) -> ast.Module | None:
  try:
    with warnings.catch_warnings():
      # "\d" in a query is the model's business, not a line on our stderr.
      warnings.simplefilter("ignore")
      return ast.parse(textwrap.dedent(source))
  # ValueError: null bytes, lone surrogates. The other two: deep nesting.
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None


def _tree_calls(
  tree: ast.Module,
) -> list[Arguments | trajectory_lib.ParseFailure]:
  names: dict[str, Any] = {}
  found = []
  for statement in tree.body:
    inside = _calls_inside(statement)
    found += [_read_call(call, names) for call in inside]
    if not inside:
      _remember_literal(statement, names)
  return found


def _calls_inside(statement: ast.stmt) -> list[ast.Call]:
  """The calls of `execute` in a statement, in the order written."""
  match statement:
    # Nearly always; walking the tree takes several times as long.
    case ast.Assign(targets=[ast.Name()], value=value) | ast.Expr(value=value):
      match value:
        case ast.Call(
          func=ast.Name() | ast.Attribute(value=ast.Name()),
          args=[],
          keywords=keywords,
        ) if _is_execute(value.func) and all(
          isinstance(keyword.value, ast.Constant) for keyword in keywords
        ):
          return [value]
  found = [
    node
    for node in ast.walk(statement)
    if isinstance(node, ast.Call) and _is_execute(node.func)
  ]
  return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def _is_execute(function: ast.expr) -> bool:
  return (
    isinstance(function, ast.Attribute) and function.attr == "execute"
  ) or (isinstance(function, ast.Name) and function.id == "execute")


def _remember_literal(statement: ast.stmt, names: dict[str, Any]) -> None:
  """Keeps `query = "..."`, so that a later call may say `query=query`."""
  match statement:
    case ast.Assign(targets=[ast.Name(id=name)], value=value):
      names.pop(name, None)
      try:
        literal = _literal(value, names)
      except _NotLiteral:
        return
      # Not lists: ten lists of ten lists of ... would grow without bound.
      if not isinstance(literal, list | dict):
        names[name] = literal


def _read_call(
  call: ast.Call, names: Mapping[str, Any]
) -> Arguments | trajectory_lib.ParseFailure:
  if call.args:
    return trajectory_lib.ParseFailure(
      reason="a positional argument; name every argument"
    )
  arguments: Arguments = {}
  for keyword in call.keywords:
    if keyword.arg is None:
      return trajectory_lib.ParseFailure(reason="** is not supported")
    if keyword.arg in arguments:
      name = quoting.one_line(keyword.arg, 40)
      return trajectory_lib.ParseFailure(reason=f"argument {name} twice")
    try:
      arguments[keyword.arg] = _literal(keyword.value, names)
    except _NotLiteral as error:
      return trajectory_lib.ParseFailure(
        reason=f"argument {quoting.one_line(keyword.arg, 40)}: {error}"
      )
  # One long name used in many arguments; other values are as long as written.
  if sum(len(v) for v in arguments.values() if isinstance(v, str)) > _MAX_CHARS:
    return trajectory_lib.ParseFailure(reason="arguments too long")
  return arguments


def _literal(node: ast.expr, names: Mapping[str, Any], depth: int = 0) -> Any:
  """The value of a literal expression, without evaluating anything."""
  if depth > _MAX_DEPTH:
    raise _NotLiteral("nested too deeply")
  match node:
    case ast.Constant(value=value):
      return _plain(value)
    case ast.Name(id=name) if name in names:
      return names[name]
    case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) if (
      isinstance(value, int | float) and not isinstance(value, bool)
    ):
      return _plain(-value)
    # No names inside: one long text, named a thousand times, would be large.
    case ast.List(elts=items) | ast.Tuple(elts=items):
      return [_literal(item, {}, depth + 1) for item in items]
    case ast.Dict(keys=keys, values=values):
      return {
        _key(key): _literal(value, {}, depth + 1)
        for key, value in zip(keys, values, strict=True)
      }
    case ast.BinOp(op=ast.Add(), left=left, right=right):
      first = _literal(left, names, depth + 1)
      second = _literal(right, names, depth + 1)
      if isinstance(first, str) and isinstance(second, str):
        if len(first) + len(second) > _MAX_CALL_CHARS:
          raise _NotLiteral("text too long")
        return first + second
  raise _NotLiteral("not a literal value")


def _key(node: ast.expr | None) -> str:
  key = None if node is None else _literal(node, {})
  if not isinstance(key, str):
    raise _NotLiteral("a key is not a string")
  return key


def _plain(value: Any, depth: int = 0) -> Any:
  """`value` if JSON can carry it to any tool and any record."""
  if depth > _MAX_DEPTH:
    raise _NotLiteral("nested too deeply")
  match value:
    case None | bool():
      return value
    case str():
      return quoting.scrub(value)
    case int() if -_MAX_INT <= value < _MAX_INT:
      return value
    case float() if math.isfinite(value):
      return value
    case list():
      return [_plain(item, depth + 1) for item in value]
    case dict():
      return {
        quoting.scrub(str(key)): _plain(item, depth + 1)
        for key, item in value.items()
      }
  raise _NotLiteral("not text, a 64-bit integer, a finite number, list or dict")


def _scanned_calls(
  text: str, start: int
) -> Iterator[Arguments | trajectory_lib.ParseFailure]:
  """Reads call by call, where the text as a whole is not Python."""
  budget = 2 * _MAX_CALL_CHARS
  for _ in range(2 * MAX_CALLS):
    match = _CALL.search(text, start)
    if match is None:
      return
    start = match.end()
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    if line.lstrip().startswith("#"):
      continue
    end = _call_end(text, start, min(budget, _MAX_CALL_CHARS))
    if end is None:
      yield trajectory_lib.ParseFailure(reason="a call without its end")
      return
    tree = _tree("execute(" + text[start:end])
    budget -= end - start
    start = end
    if tree is None:
      yield trajectory_lib.ParseFailure(reason="a call that is not Python")
    else:
      yield from _tree_calls(tree)


def _call_end(text: str, start: int, limit: int) -> int | None:
  """Index past the ")" that closes the "(" before `start`, if near enough."""
  position, depth, stop = start, 1, min(len(text), start + limit)
  while found := _STOPS.search(text, position, stop):
    token = found.group()
    position = found.end()
    if token in "([{":
      depth += 1
    elif token in ")]}":
      depth -= 1
      if not depth:
        return position
    elif token == "#":
      line_end = text.find("\n", position, stop)
      if line_end < 0:
        return None
      position = line_end
    else:
      quote = _QUOTE.match(text, found.start())
      position = _string_end(text, quote, stop) if quote else None
      if position is None:
        return None
  return None


def _string_end(text: str, quote: re.Match, stop: int) -> int | None:
  position = quote.end()
  while (end := text.find(quote.group(), position, stop)) >= 0:
    slashes = end - len(text[position:end].rstrip("\\")) - position
    if not slashes % 2:
      return end + len(quote.group())
    position = end + 1
  return None
