"""Finds keys and passwords that were written into a config.

A config is saved with its run, and runs are passed around. Two ways to find a
secret: its value is one of the environment's, or it stands where a secret
stands (a URL's user part, behind `--key` or `API_KEY=`).

What this does not do: know a secret by its looks; one that is called "name"
passes.
"""

import re

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors, redaction

_SECRET = r"(?:key|api_?key|token|password|passwd|secret)"
# What begins with "$" names a secret and is none.
_VALUE = r"[\"']?[^\s$\"']"
_PLACES = {
  "a user or password in a URL": re.compile(
    r"[a-z][a-z0-9+.-]*://[^/?#\s@]+@", re.IGNORECASE
  ),
  # --key VALUE, --hub-token=VALUE; not --max-tokens, not --key-file.
  "a key among a command's arguments": re.compile(
    rf"(?<![\w-])--?(?:[a-z0-9]+[_-])*{_SECRET.replace('_', '[_-]')}"
    rf"(?:\s*=\s*|\s+(?!-)){_VALUE}",
    re.IGNORECASE,
  ),
  # API_KEY=VALUE of a command, ?token=VALUE of a URL; a server may be called
  # "key", so not at the very start.
  "a key by its name": re.compile(
    rf"(?<=[\s=?&;\"'])(?:[a-z0-9]+_)*{_SECRET}={_VALUE}", re.IGNORECASE
  ),
  "a key in a header": re.compile(
    rf"\b(?:bearer|basic)\s+{_VALUE}{{8}}", re.IGNORECASE
  ),
}


def refuse(config: config_lib.Config) -> None:
  """Raises if a text of the config holds a secret.

  Raises:
    ConfigError: it does; the message does not repeat it.
  """
  redact = redaction.Redactor.from_environment()
  for key in config_validation.field_types():
    value = config_validation.get(config, key)
    text = str(value)
    if redact(text) != text:
      raise errors.ConfigError(
        f"{key}={redact(text)!r} holds a secret of the environment, and a "
        "config is saved with its run; keys are read from the environment: "
        "leave it out"
      )
    parts = value if isinstance(value, tuple) else (value,)
    for part in parts:
      if isinstance(part, str) and (place := _place(part)):
        raise errors.ConfigError(
          f"{key} holds {place}, and a config is saved with its run: put it "
          "in the environment (an MCP server's own: in a file it reads)"
        )


def _place(text: str) -> str:
  """Where in a text a secret stands, in words; "" if nowhere."""
  return next(
    (place for place, sign in _PLACES.items() if sign.search(text)), ""
  )
