"""Sums and maxima over loss entries, from micro-batches to host metrics.

Flow: per-entry arrays of one micro-batch -> Statistics -> merged over the
micro-batches on device -> one transfer -> `host_metrics`, a dict of floats.
Everything is a sum, a maximum or a histogram, so the result does not depend on
how the entries were split. No gradient flows through any of it but the loss.

Axes: B row, E loss entry, K histogram bin.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Quarter-octave bins: bin k > 0 ends at 2 ** ((k - 107) / 4), so they cover
# 1e-8 .. 32 with a relative resolution of 19 %; bin 0 is "no more than 1e-8".
BINS = 128
_UNIT_BIN = 107


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
  """Totals by name; `sums` add up over micro-batches, `maxima` do not."""

  sums: dict[str, Any]
  maxima: dict[str, Any]  # of values that are never negative


def merge(first: Statistics, second: Statistics) -> Statistics:
  return Statistics(
    sums=jax.tree.map(jnp.add, first.sums, second.sums),
    maxima=jax.tree.map(jnp.maximum, first.maxima, second.maxima),
  )


def histogram(values_BE, counts_BE):
  """Summed `counts_BE` per bin of `values_BE` (>= 0), [K]."""
  smallest = 2.0 ** (-_UNIT_BIN / 4)
  octave_BE = jnp.log2(jnp.maximum(values_BE, smallest))
  bin_BE = jnp.ceil(octave_BE * 4).astype(jnp.int32) + _UNIT_BIN
  hits_BEK = jnp.clip(bin_BE, 0, BINS - 1)[..., None] == jnp.arange(BINS)
  return jnp.where(hits_BEK, counts_BE[..., None], 0).sum((0, 1))


def quantile(counts_K, q: float) -> float:
  """Upper edge of the bin that holds quantile `q`; 0 for the lowest bin."""
  cumulative_K = np.cumsum(np.asarray(counts_K, np.float64))
  k = int(np.searchsorted(cumulative_K, q * cumulative_K[-1]))
  return 0.0 if k == 0 else float(2.0 ** ((k - _UNIT_BIN) / 4))


def host_metrics(totals: Statistics) -> dict[str, float]:
  """Means, fractions and maxima of the totals of an optimizer batch.

  `policy_loss` is the sum that is minimised. `kl` and `entropy`, where they
  were computed, are weighted means per token, before their coefficients.
  `ratio_*`, `drift_*` and `clip_fraction_*` count trained tokens equally.
  `drift` is |learner's - sampler's logprob| in nats; its p99 is the upper edge
  of a 19 % wide bin, and `drift_outside` the share of tokens whose probability
  differs by more than a tenth.
  """
  sums = {k: v for k, v in totals.sums.items() if np.ndim(v) == 0}
  sums = {k: float(v) for k, v in sums.items()}
  tokens = max(sums["tokens"], 1.0)
  if "nll" in sums:
    return {"nll": sums["nll"] / tokens, "tokens": sums["tokens"]}
  weight = sums["weight"] or 1.0
  metrics = {
    "policy_loss": sums["policy_loss"],
    "tokens": sums["tokens"],
    "clip_fraction": (sums["clip_low"] + sums["clip_high"]) / tokens,
    "clip_fraction_low": sums["clip_low"] / tokens,
    "clip_fraction_high": sums["clip_high"] / tokens,
    "ratio_mean": sums["ratio"] / tokens,
    "ratio_max": float(totals.maxima["ratio"]),
    "drift_mean": sums["drift"] / tokens,
    "drift_max": float(totals.maxima["drift"]),
    "drift_p99": quantile(totals.sums["drift_histogram"], 0.99),
    "drift_outside": sums["drift_outside"] / tokens,
  }
  for name in ("kl", "entropy"):
    if name in sums:
      metrics[name] = sums[name] / weight
  return metrics
