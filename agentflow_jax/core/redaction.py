"""Keeps secrets of the environment out of files that people pass around.

A variable whose name says it is a secret (KEY, TOKEN, SECRET, PASSWORD) gives
its value to a Redactor, which replaces it wherever it turns up in a text: as
it is, URL-encoded, or with quotes and line ends escaped.

It can not know a secret that never was in the environment, and it does not
look into encodings that mix the secret with other bytes (base64).
"""

import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping

PLACEHOLDER = "[redacted]"

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
# Shorter values ("1", "false", "cpu") are settings; replacing them would
# shred ordinary text.
_MIN_LENGTH = 8


class Redactor:
  """Replaces secrets in a text.

  Example: `Redactor(["hunter2hunter2"])("pw=hunter2hunter2;")` is
  `"pw=[redacted];"`.
  """

  def __init__(self, secrets: Iterable[str]):
    forms = {
      form
      for secret in secrets
      if len(secret) >= _MIN_LENGTH
      for form in _forms(secret)
    }
    # Longest first, so that a secret inside another leaves no remainder.
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    self._pattern = (
      re.compile("|".join(map(re.escape, longest_first)))
      if longest_first
      else None
    )

  @classmethod
  def from_environment(
    cls, environment: Mapping[str, str] | None = None
  ) -> "Redactor":
    """Takes the values of all variables whose name marks a secret."""
    variables = os.environ if environment is None else environment
    return cls(
      value.strip()
      for name, value in variables.items()
      if _SECRET_NAME.search(name)
    )

  @property
  def idle(self) -> bool:
    """Whether there is nothing to hide."""
    return self._pattern is None

  def __call__(self, text: str) -> str:
    if self._pattern is None:
      return text
    return self._pattern.sub(PLACEHOLDER, text)


def _forms(secret: str) -> set[str]:
  """The ways a secret is commonly written inside other text."""
  return {
    secret,
    urllib.parse.quote(secret, safe=""),
    urllib.parse.quote_plus(secret),
    json.dumps(secret)[1:-1],
    json.dumps(secret, ensure_ascii=False)[1:-1],
    repr(secret)[1:-1],
  }
