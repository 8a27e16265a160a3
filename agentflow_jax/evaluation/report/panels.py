"""Which metrics answer which question: the tables behind the charts.

A panel is answered by training rollouts (a line), by held-out evaluations
(markers), or by both on one axis. To chart another metric, add a row; drawing
is in figures.py.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
  """One chart: metrics as (name, legend, colour), and an evaluation field."""

  title: str
  caption: str
  unit: str
  metrics: tuple[tuple[str, str, str], ...]
  evaluation: str = ""
  percent: bool = False
  log: bool = False


BEHAVIOUR = (
  Panel(
    title="Turns per question",
    caption="Rounds of plan, act, verify before the agent stops.",
    unit="turns",
    metrics=(("turns", "training", "train"),),
    evaluation="mean_turns",
  ),
  Panel(
    title="Completion length",
    caption="How much the planner writes.",
    unit="tokens",
    metrics=(("completion_tokens", "training", "train"),),
    evaluation="completion_tokens",
  ),
  Panel(
    title="Tool errors",
    caption="Tool results that were an error instead of an answer.",
    unit="share of results",
    metrics=(("tool_error_rate", "training", "train"),),
    evaluation="tool_error_rate",
    percent=True,
  ),
  Panel(
    title="Unreadable plans",
    caption="Planner outputs that did not follow the format.",
    unit="share of turns",
    metrics=(("parse_failure_rate", "training", "train"),),
    evaluation="parse_failure_rate",
    percent=True,
  ),
  Panel(
    title="Unreadable verdicts",
    caption="Verifier answers without a readable verdict, which count as "
    "CONTINUE.",
    unit="share of verifier answers",
    metrics=(("verdict_failure_rate", "training", "train"),),
    evaluation="verdict_failure_rate",
    percent=True,
  ),
)

OPTIMISATION = (
  Panel(
    title="Drift",
    caption="Logprobs of the sampled tokens, learner against sampler. Small "
    "means that what is sampled is what is scored.",
    unit="nats",
    metrics=(
      ("drift_max", "largest", "c4"),
      ("drift_mean", "mean", "train"),
    ),
    log=True,
  ),
  Panel(
    title="KL to the reference",
    caption="How far the planner has moved from its start weights.",
    unit="nats per token",
    metrics=(("kl", "training", "train"),),
  ),
  Panel(
    title="Entropy",
    caption="How open the planner's next-token choices still are.",
    unit="nats per token",
    metrics=(("entropy", "training", "train"),),
  ),
  Panel(
    title="Clipped tokens",
    caption="Tokens whose probability ratio left the trust region.",
    unit="share of trained tokens",
    metrics=(("clip_fraction", "training", "train"),),
    percent=True,
  ),
  Panel(
    title="Gradient norm",
    caption="Of all parameters together, before clipping.",
    unit="L2 norm",
    metrics=(("grad_norm", "training", "train"),),
  ),
  Panel(
    title="Learning rate",
    caption="As the schedule set it.",
    unit="per optimizer step",
    metrics=(("lr", "training", "train"),),
  ),
)

COST = (
  Panel(
    title="Throughput",
    caption="Tokens handled per second of wall clock.",
    unit="tokens per second",
    metrics=(("tokens_per_s", "training", "train"),),
  ),
  Panel(
    title="Token savings",
    caption="Tokens computed per distinct token: at 1 every shared prefix was "
    "computed once.",
    unit="computed ÷ distinct",
    metrics=(("computed_over_distinct", "training", "train"),),
  ),
  Panel(
    title="Tokens of an update",
    caption="What the learner computes, beside a row for every sample.",
    unit="tokens per optimizer step",
    metrics=(
      ("sample_tokens", "without sharing", "c4"),
      ("computed_tokens", "computed", "train"),
    ),
  ),
  Panel(
    title="Prefix reuse",
    caption="Prompt tokens that the sampler took from its cache.",
    unit="share of prompt tokens",
    metrics=(("sampler/prefix_hit_rate", "training", "train"),),
    percent=True,
  ),
  Panel(
    title="Left out of the update",
    caption="Groups whose rewards were all equal, and attempts that "
    "infrastructure lost.",
    unit="per iteration",
    metrics=(
      ("skipped_groups", "groups skipped", "train"),
      ("masked_members", "attempts masked", "c4"),
    ),
  ),
)
