"""`--config.section.key=value` arguments, checked before flags are parsed.

Flow: argv -> every override is looked up in the config tree and its value
tried against the key's type -> argv in the one spelling that
ml_collections.config_flags understands, with `--config=FILE` in front.

So that a typing mistake is one sentence that names the key, its nearest
neighbour or its type, instead of a traceback out of three libraries.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from agentflow_jax.core import config_validation, errors

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)
_FILE = re.compile(r"--?config(?:=(.*))?", re.DOTALL)
_PRESET = "learner.preset"
_PARSERS: dict[Any, flags.ArgumentParser] = {
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
  bool: flags.BooleanParser(),
}


def normalise(argv: Sequence[str], default_path: str) -> list[str]:
  """Rewrites the config arguments and leaves all others alone.

  Args:
    argv: program name first, flag files already read.
    default_path: the config file if none is given.

  Returns:
    Program name, `--config=FILE`, one `--config.KEY=VALUE` per overridden key
    (the last one wins; those of a tuple add up; a preset comes first, because
    it sets other keys), then the other arguments.

  Raises:
    ConfigError: unknown key, wrong type, missing value, two config files.
  """
  kinds = config_validation.field_types()
  given: dict[str, Any] = {}
  files: list[str] = []
  rest: list[str] = []
  arguments = iter(argv[1:])
  for argument in arguments:
    if argument == "--":
      rest += [argument, *arguments]
    elif match := _OVERRIDE.fullmatch(argument):
      key, value = _override(match, kinds, arguments)
      added = isinstance(value, tuple) and key in given
      given[key] = given[key] + value if added else value
    elif match := _FILE.fullmatch(argument):
      files.append(_value(match[1], arguments, "--config"))
    else:
      rest.append(argument)
  if len(files) > 1:
    raise errors.ConfigError(f"--config is given twice: {', '.join(files)}")
  config_file = files[0] if files else default_path
  if _PRESET in given:
    given = {_PRESET: given[_PRESET]} | given
  return [
    argv[0],
    f"--config={config_file}",
    *(f"--config.{key}={value}" for key, value in given.items()),
    *rest,
  ]


def _override(
  match: re.Match[str], kinds: dict[str, Any], arguments: Iterator[str]
) -> tuple[str, str | tuple[str, ...]]:
  """The key and the checked value of one override."""
  negated, key, text = match[1], match[2], match[3]
  if key not in kinds:
    raise errors.ConfigError(_unknown(key, kinds))
  kind = kinds[key]
  if kind is bool and text is None:
    return key, "false" if negated else "true"
  if negated:
    raise errors.ConfigError(
      f"--noconfig.{key} only works for keys that are true or false"
    )
  text = _value(text, arguments, f"--config.{key}")
  if kind is str:
    return key, text
  try:
    if kind not in _PARSERS:
      return key, _names(text)
    _PARSERS[kind].parse(text)
  except (TypeError, ValueError, SyntaxError) as error:
    raise errors.ConfigError(
      f"config key {key!r} must be {config_validation.describe(kind)}, "
      f"got {text!r}"
    ) from error
  return key, text


def _value(text: str | None, arguments: Iterator[str], flag: str) -> str:
  """The text after "=", or else the next argument."""
  if text is None:
    text = next(arguments, None)
  if text is None:
    raise errors.ConfigError(f"{flag} needs a value")
  return text


def _names(text: str) -> tuple[str, ...]:
  """`a,b` or the Python literal `("a", "b")`; nothing is the empty tuple."""
  if not text.strip().startswith(("(", "[")):
    return tuple(name.strip() for name in text.split(",") if name.strip())
  value = ast.literal_eval(text)
  names = (value,) if isinstance(value, str) else tuple(value)
  if not all(isinstance(name, str) for name in names):
    raise ValueError(text)
  return names


def _unknown(key: str, kinds: dict[str, Any]) -> str:
  inside = [name for name in kinds if name.startswith(f"{key}.")]
  if inside:
    return (
      f"config key {key!r} is a section; set one of its keys, "
      f"e.g. --config.{inside[0]}"
    )
  return config_validation.unknown_key(key)
