"""What every launch script shares: flags, one-line errors, help.

Flow: `run_app(main)` -> argv with checked config overrides (overrides.py) ->
absl flags -> main -> exit code. A mistake of the user, in a flag or found
later (`errors.UserError`), is one line on stderr and exit code 2; a bug keeps
its traceback and exits 1; Ctrl-C exits 130.

Scripts import jax, and what imports it, inside the functions that work: it
takes seconds, and --help and a mistake are answered without.
"""

import dataclasses
import functools
import inspect
import logging as python_logging
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors, redaction
from agentflow_jax.training import (
  config_secrets,
  default_config,
  overrides,
  quiet_output,
)

Main = Callable[[list[str]], int | None]

_EXIT_USER_ERROR = 2
_EXIT_INTERRUPTED = 130
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_CONFIG_FLAG = "config"
_HELP = frozenset(
  f"{dashes}{name}"
  for dashes in ("-", "--")
  for name in ("help", "h", "?", "helpshort", "helpfull")
)
# config_flags finds the overrides in this list, which `run_app` fills.
_argv: list[str] = []
_default_path: list[str] = []

# Flags defined through this module belong to the script that asks for them.
flags.disclaim_key_flags()


def define_config_flag(
  default_path: str | None = None,
) -> flags.FlagHolder[config_lib.Config]:
  """Defines `--config=FILE` and `--config.section.key=value`.

  Args:
    default_path: a file with `get_config() -> Config`, for when the user
      names none; None is the built-in default.

  Returns:
    A holder whose `.value` is the Config, with the overrides applied; call
    `config_validation.validate` on it.
  """
  _default_path[:] = [default_path or str(default_config.__file__)]
  shown = default_path or "the built-in defaults"
  return config_flags.DEFINE_config_file(
    _CONFIG_FLAG,
    help_string=f"A Python file with get_config() -> Config; else {shown}.",
    sys_argv=_argv,
  )


def config_name() -> str:
  """The chosen config file's stem, "default" for the built-in one."""
  path = config_flags.get_config_filename(flags.FLAGS[_CONFIG_FLAG])
  if path == default_config.__file__:
    return "default"
  return pathlib.Path(path.partition(":")[0]).stem


def has_config_file() -> bool:
  """True if the user named a config file, so the default one is not used."""
  path = config_flags.get_config_filename(flags.FLAGS[_CONFIG_FLAG])
  return path != _default_path[0]


def apply_overrides(config: config_lib.Config) -> None:
  """Sets the user's `--config.section.key=value` on a config of a script's.

  For a script that takes its config from elsewhere than the flag (from a run);
  the flag's own config has them already.
  """
  given = config_flags.get_override_values(flags.FLAGS[_CONFIG_FLAG])
  for key, value in given.items():
    config_validation.put(config, key, value)


def overridden_keys() -> set[str]:
  """The keys that the user gave as `--config.section.key=value`."""
  return set(config_flags.get_override_values(flags.FLAGS[_CONFIG_FLAG]))


def run_app(main: Main, arguments: str | None = None) -> NoReturn:
  """Parses the flags, runs `main(argv)` and exits the process.

  Args:
    main: gets the program name and the positional arguments.
    arguments: what the positional arguments are, e.g. "question"; at least one
      is needed then, before, between or after the flags. None refuses them.
  """
  app.run(
    functools.partial(_run_main, main),
    flags_parser=functools.partial(_parse_flags, main, arguments),
  )
  raise AssertionError("app.run exits")


def _run_main(main: Main, argv: list[str]) -> int | None:
  try:
    return main(argv)
  except errors.UserError as error:
    _complain(str(error))
    return _EXIT_USER_ERROR
  except KeyboardInterrupt:
    return _EXIT_INTERRUPTED


def _parse_flags(
  main: Main, arguments: str | None, argv: Sequence[str]
) -> list[str]:
  """Fills absl's FLAGS; exits on --help and on mistakes."""
  module = sys.modules[main.__module__]
  if _HELP.intersection(argv):
    sys.stdout.write(_help(module))
    sys.exit(0)
  try:
    rest = _parse(list(argv), arguments)
  except errors.UserError as error:
    _complain(str(error))
  except flags.UnrecognizedFlagError as error:
    _complain(_unknown_flag(error.flagname, module))
  except flags.Error as error:
    # An exception inside a config file arrives with its whole traceback.
    lines = [line for line in str(error).splitlines() if line.strip()]
    _complain(lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}")
  else:
    logging.get_absl_handler().addFilter(_is_ours)
    quiet_output.install()
    return rest
  sys.exit(_EXIT_USER_ERROR)


def _parse(argv: list[str], arguments: str | None) -> list[str]:
  has_config = _CONFIG_FLAG in flags.FLAGS
  if has_config:
    expanded = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    argv = overrides.normalise(expanded, _default_path[0])
    path = argv[1].partition("=")[2]
    if not pathlib.Path(path.partition(":")[0]).is_file():
      raise errors.ConfigError(f"config file {path!r} does not exist")
    _argv[:] = argv
  rest = flags.FLAGS(argv)
  if arguments is None and len(rest) > 1:
    raise errors.UserError(f"unexpected argument {rest[1]!r}")
  if arguments is not None and len(rest) == 1:
    raise errors.UserError(f"the {arguments} is missing; see --help")
  if has_config:
    config = flags.FLAGS[_CONFIG_FLAG].value
    if not isinstance(config, config_lib.Config):
      raise errors.ConfigError(
        f"get_config() of {config_name()!r} must return a Config, "
        f"got {type(config).__name__}"
      )
    config_secrets.refuse(config)
  return rest


def _complain(message: str) -> None:
  redact = redaction.Redactor.from_environment()
  sys.stderr.write(redact(f"error: {' '.join(message.split())}\n"))


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Log records worth a user's attention: ours, or someone's warning."""
  path = pathlib.Path(record.pathname).resolve()
  ours = _PACKAGE in path.parents or path == pathlib.Path(sys.argv[0]).resolve()
  return ours or record.levelno >= python_logging.WARNING


def _own_flags(module: Any) -> list[flags.Flag]:
  """The script's flags, without those of absl and of libraries."""
  return sorted(
    flags.FLAGS.get_key_flags_for_module(module), key=lambda flag: flag.name
  )


def _unknown_flag(name: str, module: Any) -> str:
  message = f"unknown flag '--{name}'"
  known = [flag.name for flag in _own_flags(module)]
  if known:
    message += f"; nearest: '--{config_validation.nearest(name, known)}'"
  return message


def _help(module: Any) -> str:
  """The script's docstring, its flags, and every config key."""
  lines = [inspect.getdoc(module) or "", "", "Flags:"]
  for flag in _own_flags(module):
    default = "" if flag.default is None else f"={flag.default}"
    lines += [f"  --{flag.name}{default}", *_indented(flag.help or "")]
  lines += ["  --help", *_indented("This text.")]
  if _CONFIG_FLAG in flags.FLAGS:
    lines += ["", "Config keys and their built-in values; tuples are a,b,c:"]
    lines += _config_help()
  return "\n".join(lines) + "\n"


def _config_help() -> list[str]:
  lines, default = [], config_lib.Config()
  for section, value in vars(default).items():
    about = inspect.getdoc(type(value)) or section
    lines += ["", textwrap.indent(about, "  "), *_keys_help(section, value)]
  return lines


def _keys_help(section: str, value: Any) -> list[str]:
  """The keys of a section, with those of the sections in it."""
  lines, comments = [], _comments(type(value))
  explained: dict[type, str] = {}  # seven roles have the same options
  for name, child in vars(value).items():
    key = f"{section}.{name}"
    if not dataclasses.is_dataclass(child):
      text = ",".join(child) if isinstance(child, tuple) else child
      lines += [f"  --config.{key}={text}", *_indented(comments.get(name, ""))]
    elif other := explained.get(type(child)):
      lines += [f"  --config.{key}.KEY=VALUE", *_indented(f"As {other}.KEY.")]
    else:
      explained[type(child)] = key
      about = inspect.getdoc(type(child)) or ""
      lines += [f"  --config.{key}.KEY=VALUE", *_indented(about)]
      lines += _keys_help(key, child)
  return lines


def _indented(text: str) -> list[str]:
  return textwrap.wrap(
    text, 74, initial_indent=" " * 6, subsequent_indent=" " * 6
  )


def _comments(section: type) -> dict[str, str]:
  """The `#` lines above and beside each field, from the source itself."""
  comments, above = {}, []
  for line in inspect.getsource(section).splitlines():
    text = line.strip()
    field = re.match(r"(\w+): .*?(?:  # (.*))?$", text)
    if text.startswith("#"):
      above.append(text.lstrip("# "))
    elif field:
      comments[field[1]] = " ".join([*above, *filter(None, [field[2]])])
      above = []
  return comments
