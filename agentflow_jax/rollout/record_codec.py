"""Dataclasses <-> JSON values, driven by the declared types.

`encode` and `decode` are exact inverses for everything in core/trajectory.py:
dataclasses become objects, tuples lists, enums their values, and non-finite
floats the strings "nan", "inf", "-inf", since JSON has none. `decode` is
strict: a field that is missing, unknown or of another type is a ValueError.

The one field without a declared type is a tool call's arguments. There, what
JSON has no form for is tagged (`{"$tuple": [..]}`, `{"$dict": [[k, v], ..]}`,
`{"$float": "inf"}`), and values that no JSON schema accepts (sets, bytes,
absurd nesting) become text, which is the only loss.
"""

import collections.abc
import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

_NON_FINITE = ("nan", "inf", "-inf")
_MAX_DEPTH = 50
_PLAIN = frozenset({str, int, bool, types.NoneType})


def encode(value: Any) -> Any:
  """The JSON form of a value of a declared field."""
  kind = type(value)
  if kind in _PLAIN:  # most of what a record holds; enums are not among them
    return value
  if kind is tuple:
    kinds = set(map(type, value))
    if kinds == {int} or (kinds == {float} and all(map(math.isfinite, value))):
      return list(value)  # token ids and logprobs: by the thousand
    return [encode(child) for child in value]
  if names := _names(kind):
    return {name: encode(getattr(value, name)) for name in names}
  if isinstance(value, enum.Enum):
    return value.value
  if isinstance(value, Mapping):
    return _encode_literal(dict(value), 0)
  if isinstance(value, bool | int | str):
    return value
  number = float(value)  # float32 scalars of an engine too
  return number if math.isfinite(number) else str(number)


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
  """The fields of a dataclass; none of anything else."""
  if not dataclasses.is_dataclass(kind):
    return ()
  return tuple(field.name for field in dataclasses.fields(kind))


def decode(kind: Any, value: Any, where: str) -> Any:
  """Inverse of `_encode`, strict: `kind` is the declared type."""
  if dataclasses.is_dataclass(kind):
    return _decode_dataclass(kind, value, where)
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is types.UnionType:
    return _decode_union(arguments, value, where)
  if origin is tuple:
    if not isinstance(value, list):
      raise ValueError(f"{where} is not a list")
    if arguments[-1] is Ellipsis:
      return _decode_many(arguments[0], value, where)
    if len(value) != len(arguments):
      raise ValueError(f"{where} has {len(value)} items, not {len(arguments)}")
    return tuple(map(decode, arguments, value, [where] * len(value)))
  if origin is collections.abc.Mapping:
    if not isinstance(value, dict):
      raise ValueError(f"{where} is not an object")
    return _decode_literal(value)
  return _decode_scalar(kind, value, where)


def _decode_many(kind: Any, values: list[Any], where: str) -> tuple[Any, ...]:
  if kind in (int, float) and set(map(type, values)) == {kind}:
    return tuple(values)
  return tuple(
    decode(kind, value, f"{where}[{i}]") for i, value in enumerate(values)
  )


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
  if issubclass(kind, enum.Enum):
    return kind(value)  # a ValueError names the unknown value
  if kind is float:
    if isinstance(value, int | float) and not isinstance(value, bool):
      return float(value)
    if value in _NON_FINITE:
      return float(value)
  elif type(value) is kind:
    return value
  raise ValueError(f"{where} is not {kind.__name__}: {value!r}")


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
  """X | None, or one of several dataclasses told apart by their fields."""
  if value is None and types.NoneType in kinds:
    return None
  rest = [kind for kind in kinds if kind is not types.NoneType]
  if len(rest) > 1 and isinstance(value, dict):
    rest = [kind for kind in rest if set(value) <= set(_fields(kind))]
  if len(rest) != 1:
    raise ValueError(f"{where} is none of {[k.__name__ for k in kinds]}")
  return decode(rest[0], value, where)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
  if not isinstance(value, dict):
    raise ValueError(f"{where} is not an object")
  fields = _fields(kind)
  unknown = sorted(set(value) - set(fields))
  missing = sorted(
    name
    for name, (_, required) in fields.items()
    if required and name not in value
  )
  if unknown or missing:
    raise ValueError(f"{where} has unknown {unknown} and lacks {missing}")
  return kind(
    **{
      name: decode(fields[name][0], child, f"{where}.{name}")
      for name, child in value.items()
    }
  )


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
  """Field name -> (declared type, required)."""
  hints = typing.get_type_hints(kind)
  return {
    field.name: (
      hints[field.name],
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING,
    )
    for field in dataclasses.fields(kind)
  }


def _encode_literal(value: Any, depth: int) -> Any:
  """A tool argument: JSON as it is, the rest of Python's literals tagged.

  A model wrote it, so whatever it is, it must not break the recorder.
  """
  deeper = depth + 1
  if isinstance(value, bool | int | str) or value is None:
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else {"$float": str(value)}
  if depth > _MAX_DEPTH:
    return {"$text": f"nested deeper than {_MAX_DEPTH}"}
  if isinstance(value, list):
    return [_encode_literal(child, deeper) for child in value]
  if isinstance(value, tuple):
    return {"$tuple": [_encode_literal(child, deeper) for child in value]}
  if not isinstance(value, dict):
    return {"$text": repr(value)}
  plain = all(isinstance(k, str) and not k.startswith("$") for k in value)
  pairs = [
    (
      key if plain else _encode_literal(key, deeper),
      _encode_literal(child, deeper),
    )
    for key, child in value.items()
  ]
  return dict(pairs) if plain else {"$dict": [list(pair) for pair in pairs]}


def _decode_literal(value: Any) -> Any:
  if isinstance(value, list):
    return [_decode_literal(child) for child in value]
  if not isinstance(value, dict):
    return value
  match list(value.items()):
    case [("$dict", pairs)]:
      return {_decode_literal(k): _decode_literal(v) for k, v in pairs}
    case [("$tuple", children)]:
      return tuple(_decode_literal(child) for child in children)
    case [("$float", text)]:
      return float(text)
    case [("$text", text)]:
      return text
  return {key: _decode_literal(child) for key, child in value.items()}
