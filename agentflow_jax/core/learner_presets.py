"""Published policy-gradient recipes, as values of LearnerConfig fields.

A preset is a complete choice of the loss: every field in `FIELDS` gets its
value from the recipe or else the default, and no other field is touched
(learning rate, batch sizes and lengths belong to a model, not to a recipe).
Assigning `LearnerConfig.preset` applies one, later assignments win.

What a recipe defines for one answer, we do per trained completion. Parts that
are no loss are left out: DAPO's overlong reward shaping and token-level
filtering, RLOO's KL inside the reward, GRPO's iterated reference.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

# Everything a preset decides.
FIELDS = (
  "clip_low",
  "clip_high",
  "dual_clip",
  "kl_coefficient",
  "kl_estimator",
  "entropy_coefficient",
  "aggregation",
  "ratio",
  "importance_cap",
  "baseline",
  "normalize_by_std",
  "statistics_over",
  "refill_rounds",
)

# min(rho A, clip(rho) A) with these bounds is rho A: nothing is clipped.
_UNCLIPPED = {"clip_low": 1.0, "clip_high": 1e9}

PRESETS: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
  {
    # arXiv 2510.05592, the defaults of LearnerConfig.
    "flow_grpo": {},
    # What the published AgentFlow code computes.
    "agentflow_code": {
      "statistics_over": "turns",
      "aggregation": "token_mean",
      "dual_clip": 3.0,
    },
    # arXiv 2402.03300, Eq. 3 and Section 4.2.
    "grpo": {
      "clip_high": 0.2,
      "kl_coefficient": 0.04,
      "aggregation": "turn_mean",
    },
    # arXiv 2503.20783: no division by length or by standard deviation.
    "dr_grpo": {
      "clip_high": 0.2,
      "kl_coefficient": 0.0,
      "aggregation": "constant",
      "normalize_by_std": False,
    },
    # arXiv 2503.14476: clip-higher, token mean, dynamic sampling, no KL.
    "dapo": {
      "clip_high": 0.28,
      "kl_coefficient": 0.0,
      "aggregation": "token_mean",
      "refill_rounds": 3,
    },
    # arXiv 2507.18071, Section 5.1: ratio of the whole completion.
    "gspo": {
      "ratio": "sequence",
      "clip_low": 3e-4,
      "clip_high": 4e-4,
      "kl_coefficient": 0.0,
      "aggregation": "turn_mean",
    },
    # Reward times grad log-probability of the completion, no baseline.
    "reinforce": {
      **_UNCLIPPED,
      "kl_coefficient": 0.0,
      "aggregation": "constant",
      "baseline": "none",
      "normalize_by_std": False,
    },
    # arXiv 2402.14740, Eq. 7: the others' mean is the baseline.
    "rloo": {
      **_UNCLIPPED,
      "kl_coefficient": 0.0,
      "aggregation": "constant",
      "baseline": "leave_one_out",
      "normalize_by_std": False,
    },
  }
)


def field() -> Any:
  """The field `preset`; put it first, so that all others are set after it."""
  return dataclasses.field(default_factory=lambda: "flow_grpo", init=False)


class Preset:
  """A dataclass whose field `preset` sets its other fields when assigned."""

  def __setattr__(self, name: str, value: Any) -> None:
    object.__setattr__(self, name, value)
    # An unknown name changes nothing; validation reports it.
    if name == "preset" and value in PRESETS:
      chosen = PRESETS[value]
      for key in FIELDS:
        # A dataclass keeps its defaults as class attributes.
        object.__setattr__(self, key, chosen.get(key, getattr(type(self), key)))
