"""Templates: filled to write, compiled to read, never written twice.

What fills a template may be hostile text: it is put in as it is and never
looked at again, and patterns are matched against whole texts.
"""

import re
from collections.abc import Mapping

_FIELD = re.compile(r"\{(\w+)\}")


def fill(template: str, **values: str) -> str:
  """`template` with every `{field}` replaced, in one pass.

  Example: `fill("Its currency is the {value}.", value="kip")`.

  Raises:
    KeyError: a field has no value.
  """
  return _FIELD.sub(lambda match: values[match[1]], template)


def pattern(template: str, fields: Mapping[str, str]) -> re.Pattern[str]:
  """The pattern that reads what `fill` writes; groups are named as fields.

  Args:
    template: the template.
    fields: per field, the regular expression of its value.
  """
  pieces = []
  end = 0
  for match in _FIELD.finditer(template):
    pieces.append(re.escape(template[end : match.start()]))
    pieces.append(f"(?P<{match[1]}>{fields[match[1]]})")
    end = match.end()
  pieces.append(re.escape(template[end:]))
  return re.compile("".join(pieces))
