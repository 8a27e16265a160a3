"""Axis ticks, and numbers as people read them.

Pure functions of floats. Ticks are "nice" (1, 2, 2.5 or 5 times a power of
ten); text uses a true minus sign and at most four significant digits.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
# Spans below this are drawn as flat: their ticks would underflow.
_SMALLEST_SPAN = 1e-100
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
  """A linear or logarithmic axis from `low` to `high`.

  Example: `Axis(low=0, high=10, ticks=(0, 5, 10)).fraction(5)` is 0.5.
  """

  low: float
  high: float
  ticks: tuple[float, ...]
  log: bool = False

  def fraction(self, value: float) -> float:
    """Position of `value`, 0 at the low end and 1 at the high end."""
    if self.log:
      span = math.log10(self.high) - math.log10(self.low)
      return (math.log10(value) - math.log10(self.low)) / span
    return (value - self.low) / (self.high - self.low)


def linear_axis(values: Sequence[float], intervals: int = 4) -> Axis:
  """An axis that holds all `values` and zero, ending on ticks."""
  low = min([0.0, *values])
  high = max([0.0, *values])
  if high - low < _SMALLEST_SPAN:
    high = low + 1.0
  step = _nice_step((high - low) / intervals)
  first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
  ticks = tuple(index * step for index in range(first, last + 1))
  return Axis(low=ticks[0], high=ticks[-1], ticks=ticks)


def log_axis(values: Sequence[float]) -> Axis:
  """A logarithmic axis over whole decades; all `values` are positive."""
  first = math.floor(math.log10(min(values)))
  last = max(math.ceil(math.log10(max(values))), first + 1)
  stride = math.ceil((last - first) / 5)
  last = first + stride * math.ceil((last - first) / stride)
  ticks = tuple(10.0**power for power in range(first, last + 1, stride))
  return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, log=True)


def iteration_axis(low: float, high: float, intervals: int = 6) -> Axis:
  """An axis from `low` to `high` exactly, with whole numbers as ticks."""
  if high - low < 1e-6:
    low, high = low - 0.5, high + 0.5
  step = max(1.0, _nice_step((high - low) / intervals, whole=True))
  first = math.ceil(low / step - 1e-9)
  count = math.floor(high / step + 1e-9) - first + 1
  ticks = tuple((first + index) * step for index in range(count))
  return Axis(low=low, high=high, ticks=ticks)


def _nice_step(rough: float, whole: bool = False) -> float:
  power = 10.0 ** math.floor(math.log10(rough))
  if whole and power < 10.0:  # 2.5 is no whole number
    factors = (1.0, 2.0, 5.0, 10.0)
  else:
    factors = _NICE
  return next(f * power for f in factors if f * power >= rough * (1 - 1e-9))


def percent(value: float) -> str:
  """Example: `percent(0.8766)` is "87.7%"."""
  return f"{100 * value:.1f}%".replace("-", "−")


def percent_tick(value: float) -> str:
  """Example: `percent_tick(0.25)` is "25%"."""
  return f"{100 * value:.4g}%".replace("-", "−")


def amount(value: float) -> str:
  """Up to four significant digits, thousands grouped, tiny as powers of ten.

  Example: `amount(12345.6)` is "12,346", `amount(2e-06)` is "2×10⁻⁶".
  """
  size = abs(value)
  if value == 0 or 1e-3 <= size < 1e3:
    text = f"{value:.4g}"
  elif 1e3 <= size < 1e7:
    text = f"{value:,.0f}"
  else:
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = f"{float(mantissa):g}"
    power = str(int(exponent)).translate(_SUPERSCRIPT)
    text = f"10{power}" if mantissa == "1" else f"{mantissa}×10{power}"
  return text.replace("-", "−")


def count(number: int, noun: str) -> str:
  """Example: `count(1, "turn")` is "1 turn", `count(2, "turn")` "2 turns"."""
  return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
  """Example: `duration(582)` is "9 min 42 s", its spaces not breaking."""
  whole = round(seconds)
  if seconds < 60:
    text = f"{seconds:.3g} s"
  elif whole < 3600:
    text = f"{whole // 60} min {whole % 60:02d} s"
  else:
    text = f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
  return text.replace(" ", "\u00a0")


def change(
  before: float, after: float, write: Callable[[float], str] = amount
) -> str:
  """Example: `change(0.25, 0.5, percent)` is "+25.0 points"."""
  difference = after - before
  if write is percent:
    text = f"{100 * difference:+.1f} points"
  else:
    # The difference of two rounded numbers has fewer digits that mean much.
    text = ("" if difference < 0 else "+") + write(float(f"{difference:.3g}"))
  return text.replace("-", "−")
