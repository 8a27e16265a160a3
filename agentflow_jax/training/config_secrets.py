"""Finds keys and passwords that were written into a config.

A config is saved with its run, and runs are passed around. A text is refused
if it has a value of the environment's secrets in it; something where a secret
stands (a URL's user part, a header, behind `--key` or `API_KEY=`); something
that begins as the keys of a known service do; or a URL with a part that looks
drawn at random.

What this does not do: know a word as a password outside these places. A hash
is told from a key by its length (40 or 64 hexadecimal digits) or by the package
it belongs to, a name from a key by its shape: `looks_random` may miss a key of
letters only.
"""

import re
import urllib.parse
from collections.abc import Iterator

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors, redaction
from agentflow_jax.tools import mcp_tools

_MCP = "tools.mcp_servers"
_SECRET = (
  r"(?:(?:api|auth|access|secret|private|client|user|app)?"
  r"(?:key|token|password|passwd|passphrase|secret)"
  r"|pass|auth|authorization|bearer|cookie|credentials?)"
)
_NAME = rf"(?:[a-z0-9]+[_-])*{_SECRET}"
_VALUE = r"""(?P<value>"[^"]*"|'[^']*'|[^\s"'&]+)"""
# Headers that hold no secret; of all others nobody knows.
_OPEN_HEADERS = (
  r"(?:accept|accept-\w+|content-type|user-agent|host|origin|cache-control"
  r"|mcp-protocol-version)"
)
_PLACES = {
  "a user or password in a URL": re.compile(
    r"[a-z][a-z0-9+.-]*://(?P<value>[^/?#\s@]+)@", re.IGNORECASE
  ),
  # --key VALUE, --hub-token=VALUE; not --max-tokens, --key-file, --no-auth.
  "a key among a command's arguments": re.compile(
    rf"(?<![\w-])--?(?!no-){_NAME}(?:\s*=\s*|\s+(?!-)){_VALUE}", re.IGNORECASE
  ),
  # -u NAME:PASSWORD; not the numbers of a user and group, not a URL.
  "a password among a command's arguments": re.compile(
    r"(?<![\w-])(?:-u|--(?:proxy-)?user)(?:=|\s+)"
    r"""["']?[^\s:"'/]+:(?!//|\d+\b)(?P<value>[^\s"']+)"""
  ),
  # API_KEY=VALUE of a command, ?token=VALUE of a URL; a server may be called
  # "key", so not at the very start.
  "a key by its name": re.compile(
    rf"(?<=[\s=?&#;\"']){_NAME}={_VALUE}", re.IGNORECASE
  ),
  "a key in a header": re.compile(
    r"\b(?:bearer|basic)\s+(?P<value>[^\s\"']{8,})", re.IGNORECASE
  ),
  "a header": re.compile(
    r"""(?<![\w-])(?:-H|(?i:--headers?))(?:=|\s*)["'{\s]*"""
    rf"""(?i:(?!{_OPEN_HEADERS}["']?\s*[:=]))[\w-]+["']?\s*[:=]\s*{_VALUE}"""
  ),
  # "X-Auth": "VALUE" and X-Auth: VALUE, wherever they stand.
  "a header with a key": re.compile(
    rf"""(?<![\w-]){_NAME}(?:["']\s*:\s*|:\s+){_VALUE}""", re.IGNORECASE
  ),
}
# As the services begin them; what follows is longer than a word.
_KNOWN = re.compile(
  r"(?<![A-Za-z0-9])(?:"
  r"sk[-_](?:[A-Za-z]+[a-z0-9]*[-_])*"
  r"(?:(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{8,}|[A-Za-z0-9]{20,})"
  r"|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{12,}|github_pat_\w{12,}"
  r"|glpat-[\w-]{12,}|gsk_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{16,}"
  r"|AIza[\w-]{12,}|xox[a-z]-[\w-]{8,}|A[KS]IA[A-Z0-9]{12,}"
  r"|eyJ[\w-]{8,}\.[\w-]{4,})"
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*([^\s\"']*)", re.IGNORECASE)
_PACKAGE = re.compile(r"\.(?:whl|zip|tgz|jar|gz|bz2|xz)(?:[?#]|$)")
_PINNED = re.compile(r"@[0-9a-f]{7,64}\b|\bsha\d+[=:-][A-Za-z0-9+/=]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PATH = re.compile(r"(?:~|\.{1,2})?/[\w.-]+(?:/[\w.-]+)*")
_MODES = frozenset(
  [
    *("none", "off", "on", "no", "yes", "true", "false", "auto", "env"),
    *("disabled", "enabled", "required", "optional", "oauth", "oauth2"),
    *("basic", "bearer", "digest", "jwt", "token"),
  ]
)


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
          f"in the environment{_where(part) if key == _MCP else ''}"
        )


def _where(entry: str) -> str:
  """Where an MCP server has its key from, after "in the environment"."""
  name, equals, _ = entry.partition("=")
  known = equals and len(name) <= 40 and not _place(name)
  variable = mcp_tools.token_variable(name.strip() if known else "NAME")
  return (
    f" variable {variable} (sent to a server behind HTTP), or in a file that "
    "the server's program reads"
  )


def _place(text: str) -> str:
  """Where in a text a secret stands, in words; "" if nowhere."""
  for place, sign in _PLACES.items():
    for match in sign.finditer(text):
      if not _is_harmless(match["value"].strip("\"'")):
        return place
  if _KNOWN.search(text):
    return "what begins like a key"
  if any(looks_random(part) for part in _url_parts(text)):
    return "a URL with what looks like a key"
  return ""


def _is_harmless(value: str) -> bool:
  """Whether it stands where a secret would and is none, as $KEY or a path."""
  return (
    not value
    # It names a secret.
    or value.startswith("$")
    or value.lower() in _MODES
    or (bool(_PATH.fullmatch(value)) and not looks_random(value))
  )


def _url_parts(text: str) -> Iterator[str]:
  """Segments of the paths and values of the queries of all URLs."""
  for match in _URL.finditer(text):
    rest = _PINNED.sub("", match[1])
    if not _PACKAGE.search(rest):
      for part in re.split(r"[/?#&=;,:@]", urllib.parse.unquote(rest)):
        if not _UUID.fullmatch(part) and not _HASH.fullmatch(part):
          yield part


def looks_random(text: str) -> bool:
  """Whether digits and letters of both cases change more than names do.

  Example: "k3J9x0Q2m4N8p1Z7" does, "Qwen2.5-0.5B-Instruct-GPTQ-Int4" does not.
  """
  pieces = re.findall("[A-Za-z0-9]+", text)
  whole = "".join(pieces)
  if any(
    _changes(piece, 16, 2, 0.25)
    or _changes(piece, 16, 1, 0.45)
    or _changes(piece, 24, 1, 0.15)
    for piece in pieces
  ):
    return True
  # A name's parts are short; in a key, "-" and "_" are two digits of 64.
  return _changes(whole, 20, 2, 0.4) and len(whole) >= 8 * len(pieces)


def _changes(text: str, chars: int, digits: int, share: float) -> bool:
  """Whether a text is at least so long, random and mixed.

  Args:
    text: letters and digits.
    chars: how long.
    digits: how many runs of digits, besides letters.
    share: at how many of its places the kind of character changes.
  """
  runs = re.findall(r"[A-Z]+|[a-z]+|[0-9]+", text)
  return (
    len(text) >= chars
    and digits <= sum(run.isdigit() for run in runs) < len(runs)
    and len(runs) - 1 >= share * len(text)
  )
