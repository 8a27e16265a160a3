"""TrajectoryGroups -> weighted TrainingSamples, cut into mini-batches.

Flow: scored groups -> advantages per group -> one sample per trained completion
(of `learner.trained_roles`) -> mini-batches of whole trajectories -> weights
normalised over the whole mini-batch, which is one optimizer batch.

What is left out, always counted in the metrics: masked members, groups with
nothing to compare, completions without a token. It never packs, pads or splits
anything; the ids are those the sampler drew, never re-tokenised.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from agentflow_jax.batching import advantages as advantages_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import training_sample as training_sample_lib
from agentflow_jax.core import trajectory as trajectory_lib

TrainingSample = training_sample_lib.TrainingSample
MiniBatch = tuple[TrainingSample, ...]

AGGREGATIONS = ("flow", "token_mean", "turn_mean", "constant")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
  """The samples of one rollout, one tuple per optimizer step.

  A mini-batch may be empty (nothing to learn in it); `Learner.update` then
  leaves the state alone.

  Example: 2 groups of 4 members and `mini_batch_trajectories=4` give two
  mini-batches; a zero-spread second group makes the second one empty.
  """

  mini_batches: tuple[MiniBatch, ...]
  metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
  """One trajectory with its advantage and its trained completions."""

  group: int
  trajectory: trajectory_lib.Trajectory
  advantage: float
  trained: bool  # valid, in a group with something to compare
  completions: tuple[tuple[int, engine_lib.Completion], ...]  # (turn, _)
  empty: int  # completions without a token

  @property
  def tokens(self) -> int:
    return sum(len(c.token_ids) for _, c in self.completions)


def build_samples(
  groups: Sequence[trajectory_lib.TrajectoryGroup],
  learner: config_lib.LearnerConfig,
  *,
  max_turns: int,
  max_completion_tokens: int,
  sum_over_hosts: Callable[[np.ndarray], np.ndarray] | None = None,
) -> SampleSet:
  """Samples and weights of one rollout.

  The members of all groups, in order, are cut into mini-batches of
  `learner.mini_batch_trajectories` (0: one batch), masked ones included, so
  the number of optimizer steps does not depend on luck. The normalisers of
  design section 5 count every *valid* trajectory of the mini-batch: one whose
  advantage is zero contributes nothing to the sum and still counts in
  N_trajectories, N_turns and N_tokens, as in the paper's mean over G. So a
  batch with few informative groups takes a small step, not a noisy big one.
  T_i counts the completions of trajectory i that hold at least one token.

  Args:
    groups: scored groups; masked members are allowed.
    learner: trained roles, aggregation, advantages and mini-batches.
    max_turns: T_max of `constant`.
    max_completion_tokens: L_max of `constant`.
    sum_over_hosts: elementwise sum of a float64 array over all processes, for
      runs where each host holds its own groups; hosts then hold equally many
      members, and `mini_batch_trajectories` counts one host's.

  Raises:
    ValueError: unknown aggregation, or a trained completion with text but no
      token ids (its engine can not be trained).
  """
  if learner.aggregation not in AGGREGATIONS:
    raise ValueError(
      f"aggregation {learner.aggregation!r} is unknown; known: {AGGREGATIONS}"
    )
  members, skipped = _all_members(groups, learner)
  size = learner.mini_batch_trajectories or max(1, len(members))
  chunks = [members[i : i + size] for i in range(0, len(members), size)]
  counts_M3 = np.array([_counts(chunk) for chunk in chunks], np.float64)
  if sum_over_hosts is not None:
    counts_M3 = sum_over_hosts(counts_M3)
  mini_batches = []
  for chunk, (trajectories, turns, tokens) in zip(
    chunks, counts_M3, strict=True
  ):
    weight = _weight_rule(
      learner.aggregation,
      trajectories=trajectories,
      turns=turns,
      tokens=tokens,
      constant=max_turns * max_completion_tokens,
    )
    mini_batches.append(_samples(chunk, weight))
  metrics = _metrics(members, mini_batches)
  metrics["groups"] = float(len(groups))
  metrics["skipped_groups"] = float(skipped)
  return SampleSet(mini_batches=tuple(mini_batches), metrics=metrics)


def _all_members(
  groups: Sequence[trajectory_lib.TrajectoryGroup],
  learner: config_lib.LearnerConfig,
) -> tuple[list[_Member], int]:
  """Every group's members, in order, and how many groups train nothing."""
  members: list[_Member] = []
  skipped = 0
  for index, group in enumerate(groups):
    group_members = _members(index, group, learner)
    skipped += not any(m.trained for m in group_members)
    members.extend(group_members)
  return members, skipped


def _members(
  index: int,
  group: trajectory_lib.TrajectoryGroup,
  learner: config_lib.LearnerConfig,
) -> list[_Member]:
  trajectories = group.trajectories
  found = [_completions(t, learner.trained_roles) for t in trajectories]
  advantages_G = advantages_lib.group_advantages(
    [np.nan if t.reward is None else t.reward for t in trajectories],
    [not t.masked for t in trajectories],
    normalize_by_std=learner.normalize_by_std,
    turns_G=[len(completions) for completions, _ in found],
    statistics_over=learner.statistics_over,
    baseline=learner.baseline,
  )
  return [
    _Member(
      group=index,
      trajectory=trajectory,
      advantage=float(advantage),
      trained=bool(advantages_G.any()) and not trajectory.masked,
      completions=completions,
      empty=empty,
    )
    for trajectory, (completions, empty), advantage in zip(
      trajectories, found, advantages_G, strict=True
    )
  ]


def _completions(
  trajectory: trajectory_lib.Trajectory,
  roles: Sequence[str],
):
  """((turn, completion), ...) with tokens, and how many had none."""
  calls = [
    (turn.index, call)
    for turn in trajectory.turns
    for call in turn.module_calls
  ]
  calls += [(len(trajectory.turns), call) for call in trajectory.final_calls]
  kept, empty = [], 0
  for turn, call in calls:
    if call.role not in roles:
      continue
    completion = call.completion
    if completion.token_ids:
      kept.append((turn, completion))
    elif completion.text and not trajectory.masked:
      raise ValueError(
        f"task {trajectory.task.id!r} member {trajectory.member} turn {turn}: "
        f"the {call.role} completion has text but no token ids; its engine "
        "can not be trained"
      )
    else:
      empty += 1
  return tuple(kept), empty


def _counts(chunk: Sequence[_Member]) -> tuple[int, int, int]:
  """(N_trajectories, N_turns, N_tokens) over the valid members."""
  valid = [m for m in chunk if not m.trajectory.masked]
  return (
    len(valid),
    sum(len(m.completions) for m in valid),
    sum(m.tokens for m in valid),
  )


def _weight_rule(
  aggregation: str,
  *,
  trajectories: float,
  turns: float,
  tokens: float,
  constant: float,
) -> Callable[[int, int], float]:
  """(T_i, len(a_it)) -> w_itj, the table of design section 5."""
  rules: dict[str, Callable[[int, int], float]] = {
    "flow": lambda t, a: 1.0 / (trajectories * t * a),
    "token_mean": lambda t, a: 1.0 / tokens,
    "turn_mean": lambda t, a: 1.0 / (turns * a),
    "constant": lambda t, a: 1.0 / (trajectories * constant),
  }
  return rules[aggregation]


def _samples(
  chunk: Sequence[_Member], weight: Callable[[int, int], float]
) -> MiniBatch:
  return tuple(
    TrainingSample(
      prompt_ids=np.asarray(completion.prompt_token_ids, np.int32),
      completion_ids=np.asarray(completion.token_ids, np.int32),
      behavior_logprobs=np.asarray(completion.logprobs, np.float32),
      advantage=member.advantage,
      weight=weight(len(member.completions), len(completion.token_ids)),
      group=member.group,
      trajectory=member.trajectory.member,
      turn=turn,
      policy_version=completion.policy_version,
    )
    for member in chunk
    if member.trained
    for turn, completion in member.completions
  )


def _metrics(
  members: Sequence[_Member], mini_batches: Sequence[MiniBatch]
) -> dict[str, float]:
  samples = [s for mini_batch in mini_batches for s in mini_batch]
  masked = sum(m.trajectory.masked for m in members)
  cut = sum(
    completion.finish_reason == engine_lib.FinishReason.LENGTH
    for m in members
    for _, completion in m.completions
  )
  return {
    "trajectories": float(len(members)),
    "masked_members": float(masked),
    "samples": float(len(samples)),
    "trained_tokens": float(sum(len(s.completion_ids) for s in samples)),
    "prompt_tokens": float(sum(len(s.prompt_ids) for s in samples)),
    "empty_completions": float(sum(m.empty for m in members)),
    "length_cut_completions": float(cut),
    "empty_mini_batches": float(sum(not m for m in mini_batches)),
  }
