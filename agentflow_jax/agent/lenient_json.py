"""Finds the JSON a model wrote amid other text.

Tried in this order: fenced blocks (last first), the whole text, the object
that starts at the first "{". A bounded number of attempts, so that hostile
text costs a bounded multiple of one parse. Never raises on any str.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

# A fenced block; one that is never closed runs to the end of the text.
FENCE = re.compile(
  r"```[\w+-]*+[ \t\r]*+\n(?P<body>.*?)(?:\n[ \t]*```|\Z)", re.DOTALL
)
_MAX_FENCES = 3
_DECODER = json.JSONDecoder()


def find_values(text: str) -> Iterator[Any]:
  """Yields the JSON objects and arrays found, best candidate first."""
  fenced = [m["body"].strip() for m in FENCE.finditer(text)]
  for candidate in (*reversed(fenced[-_MAX_FENCES:]), text.strip()):
    if candidate.startswith(("{", "[")):
      value = _decode(candidate)
      if value is not None:
        yield value
  start = text.find("{")
  if start > 0:
    value = _decode(text[start:])
    if value is not None:
      yield value


def _decode(text: str) -> Any:
  """The value `text` begins with, or None."""
  try:
    return _DECODER.raw_decode(text)[0]
  # RecursionError: thousands of nested brackets. ValueError: not JSON, or an
  # integer beyond the interpreter's digit limit.
  except (ValueError, RecursionError):
    return None
