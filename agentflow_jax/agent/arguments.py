"""A call's arguments against the tool's JSON schema.

Covers what tools use: `type` (one or several), `enum`, `properties`,
`required`, `items`. Arguments the schema does not name are refused. Keywords
that only describe (`description`, `default`, `title`) are not looked at. What
this does not do: `$ref`, `anyOf`, formats and ranges; a tool that needs them
checks its own input.
"""

from collections.abc import Mapping
from typing import Any

from agentflow_jax.agent import quoting
from agentflow_jax.core import tool as tool_lib

_MAX_NAME_CHARS = 60

_TYPES = {
  "string": lambda value: isinstance(value, str),
  "boolean": lambda value: isinstance(value, bool),
  "integer": lambda value: (
    isinstance(value, int) and not isinstance(value, bool)
  ),
  "number": lambda value: (
    isinstance(value, int | float) and not isinstance(value, bool)
  ),
  "array": lambda value: isinstance(value, list),
  "object": lambda value: isinstance(value, Mapping),
  "null": lambda value: value is None,
}


def validate_arguments(
  arguments: Mapping[str, Any], spec: tool_lib.ToolSpec
) -> str | None:
  """What is wrong with `arguments`, in one line for the agent, or None.

  Example: {"q": "Laos"} for a tool that takes `query` is
  "unknown argument q; the arguments are: query".

  Raises:
    ValueError: the schema names a type that does not exist (a tool's bug).
  """
  schema = {**spec.inputs, "type": "object", "additionalProperties": False}
  return _check(arguments, schema, "")


def _check(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
  kinds = schema.get("type", ())
  kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
  if unknown := [kind for kind in kinds if kind not in _TYPES]:
    raise ValueError(f"unknown JSON schema type {unknown[0]!r}")
  if kinds and not any(_TYPES[kind](value) for kind in kinds):
    return f"{where} must be {' or '.join(kinds)}"
  if "enum" in schema and value not in schema["enum"]:
    return f"{where} must be one of {', '.join(map(str, schema['enum']))}"
  if isinstance(value, Mapping):
    return _check_object(value, schema, where)
  if isinstance(value, list) and "items" in schema:
    for i, item in enumerate(value):
      if problem := _check(item, schema["items"], f"{where}[{i}]"):
        return problem
  return None


def _check_object(
  value: Mapping[str, Any], schema: Mapping[str, Any], where: str
) -> str | None:
  properties = schema.get("properties", {})
  for name in schema.get("required", ()):
    if name not in value:
      return f"missing argument {_path(where, name)}"
  for name, item in value.items():
    if name in properties:
      if problem := _check(item, properties[name], _path(where, name)):
        return problem
    elif not schema.get("additionalProperties", True):
      known = ", ".join(properties) or "none"
      return (
        f"unknown argument {_path(where, name)}; the arguments are: {known}"
      )
  return None


def _path(where: str, name: str) -> str:
  short = quoting.one_line(name, _MAX_NAME_CHARS)
  return f"{where}.{short}" if where else short
