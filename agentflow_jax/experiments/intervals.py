"""Intervals over seeds: a mean of few runs and how well it is known."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_QUANTILES = (
  *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
  *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
  *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A mean over `count` runs; `low` and `high` bound it at 95 %.

  One run says nothing about others, so it has no bounds. The bounds of a share
  may lie outside [0, 1]: with few runs they are wide.
  """

  mean: float
  low: float | None
  high: float | None
  count: int


def estimate(values: Sequence[float]) -> Estimate:
  """The mean and its Student t interval.

  Beyond 31 values the quantile of 31 is used, which is slightly too wide.

  Example: `estimate([1, 2, 3])` is 2, from -0.484 to 4.484.
  """
  mean = statistics.fmean(values)
  if len(values) < 2:
    return Estimate(mean=mean, low=None, high=None, count=len(values))
  quantile = _QUANTILES[min(len(values) - 1, len(_QUANTILES)) - 1]
  half = quantile * statistics.stdev(values) / math.sqrt(len(values))
  return Estimate(
    mean=mean, low=mean - half, high=mean + half, count=len(values)
  )
