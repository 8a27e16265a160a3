"""What a suite hands to the launch script, and how it is printed.

The last line is JSON with every figure, for scripts; what comes before is for
people.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
  """A table with a title and notes; all rows have the same columns."""

  title: str
  rows: Sequence[Mapping[str, str]]
  notes: Sequence[str] = ()

  def text(self) -> str:
    columns = list(self.rows[0]) if self.rows else []
    lines = [columns, *([row[c] for c in columns] for row in self.rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    table = [
      "  ".join(
        cell.ljust(width) for cell, width in zip(line, widths, strict=True)
      ).rstrip()
      for line in lines
    ]
    return "\n".join([self.title, *table, *(f"  {n}" for n in self.notes)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
  """Everything a suite found.

  Example: `Report(suite="rollout", figures={"host_share": 0.02}, sections=[])`.
  """

  suite: str
  figures: Mapping[str, Any]
  sections: Sequence[Section]

  def text(self) -> str:
    """Sections, then one line of JSON."""
    figures = {"suite": self.suite} | _rounded(dict(self.figures))
    parts = [section.text() for section in self.sections]
    return "\n\n".join([*parts, json.dumps(figures, allow_nan=False)])


def compact(options: Mapping[str, Any]) -> str:
  """`key=value` of each option, or a dash."""
  return " ".join(f"{k}={v}" for k, v in options.items()) or "-"


def _rounded(value: Any) -> Any:
  """Floats to four significant digits, at any depth."""
  if isinstance(value, dict):
    return {key: _rounded(entry) for key, entry in value.items()}
  return float(f"{value:.4g}") if isinstance(value, float) else value
