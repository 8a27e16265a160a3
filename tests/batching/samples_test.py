import dataclasses

import numpy as np
import pytest

from agentflow_jax.batching import samples as samples_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.testing import loss_oracle

_PLANNER = messages_lib.ModuleRole.PLANNER
_GENERATOR = messages_lib.ModuleRole.GENERATOR
_TASK = task_lib.Task(id="t", question="q", answers=("a",), data_source="d")


def _call(tokens, role=_PLANNER, text=""):
  completion = engine_lib.Completion(
    text=text,
    finish_reason=(
      engine_lib.FinishReason.LENGTH
      if len(tokens) >= 8
      else engine_lib.FinishReason.STOP
    ),
    token_ids=tuple(tokens),
    logprobs=tuple(-0.5 - i for i in range(len(tokens))),
    prompt_token_ids=(1, 2, 3),
    policy_version=4,
  )
  return trajectory_lib.ModuleCall(
    role=role, messages=(), completion=completion
  )


def _trajectory(member, lengths, reward, stop="verified", **fields):
  turns = tuple(
    trajectory_lib.Turn(
      index=t,
      decision=trajectory_lib.ParseFailure(reason="r"),
      command="",
      calls=(),
      results=(),
      verdict=trajectory_lib.Verdict(stop=False),
      module_calls=(_call(range(10, 10 + n)), _call((), _GENERATOR, "by rule")),
    )
    for t, n in enumerate(lengths)
  )
  return trajectory_lib.Trajectory(
    task=_TASK,
    member=member,
    turns=turns,
    answer="",
    outputs=(),
    stop_reason=trajectory_lib.StopReason(stop),
    policy_version=4,
    reward=reward,
    **fields,
  )


def _group(*members):
  return trajectory_lib.TrajectoryGroup(
    task=_TASK,
    trajectories=tuple(
      _trajectory(i, *member) for i, member in enumerate(members)
    ),
  )


# Two live groups, one with equal rewards, one with a single valid member.
_GROUPS = (
  _group(((3, 2), 1.0), ((4,), 0.0)),
  _group(((5,), 1.0), ((1, 1, 2), 1.0)),
  _group(((2,), 0.0), ((9,), None, "infra_error"), ((1, 6), 1.0)),
  _group(((2,), 1.0), ((3,), 1.0, "timeout")),
)


def _build(groups=_GROUPS, **overrides):
  return samples_lib.build_samples(
    groups,
    config_lib.LearnerConfig(**overrides),
    max_turns=3,
    max_completion_tokens=10,
  )


def test_every_field_comes_from_the_completion():
  (batch,) = _build().mini_batches
  sample = batch[1]  # group 0, member 0, turn 1
  np.testing.assert_array_equal(sample.prompt_ids, [1, 2, 3])
  np.testing.assert_array_equal(sample.completion_ids, [10, 11])
  np.testing.assert_array_equal(sample.behavior_logprobs, [-0.5, -1.5])
  assert (sample.group, sample.trajectory, sample.turn) == (0, 0, 1)
  assert sample.policy_version == 4
  assert sample.prompt_ids.dtype == np.int32
  assert sample.behavior_logprobs.dtype == np.float32
  np.testing.assert_allclose(sample.advantage, 0.5 / (np.sqrt(0.5) + 1e-6))


def test_only_live_groups_are_trained_and_everything_else_is_counted():
  result = _build()
  (batch,) = result.mini_batches
  where = [(s.group, s.trajectory, s.turn) for s in batch]
  assert where == [
    (0, 0, 0), (0, 0, 1), (0, 1, 0), (2, 0, 0), (2, 2, 0), (2, 2, 1),
  ]  # fmt: skip
  assert result.metrics == {
    "groups": 4,
    "skipped_groups": 2,
    "trajectories": 9,
    "masked_members": 2,
    "samples": 6,
    "trained_tokens": 3 + 2 + 4 + 2 + 1 + 6,
    "prompt_tokens": 18,
    "empty_completions": 0,
    "length_cut_completions": 1,
    "empty_mini_batches": 0,
  }


# The valid trajectories' completion lengths, zero-advantage ones included.
_LENGTHS = ((3, 2), (4,), (5,), (1, 1, 2), (2,), (1, 6), (2,))
_WHERE = {(0, 0): 0, (0, 1): 1, (2, 0): 4, (2, 2): 5}


@pytest.mark.parametrize("aggregation", samples_lib.AGGREGATIONS)
def test_weights_equal_the_oracle(aggregation):
  (batch,) = _build(aggregation=aggregation).mini_batches
  for s in batch:
    expected = loss_oracle.oracle_weight(
      _LENGTHS,
      _WHERE[s.group, s.trajectory],
      s.turn,
      aggregation,
      max_turns=3,
      max_tokens=10,
    )
    np.testing.assert_allclose(s.weight, expected, rtol=1e-12)


@pytest.mark.parametrize(
  ("aggregation", "expected"),
  [
    # 7 valid trajectories, 11 valid turns, 29 valid tokens; the sample has 2
    # tokens in a trajectory of 2 turns.
    ("flow", 1 / (7 * 2 * 2)),
    ("token_mean", 1 / 29),
    ("turn_mean", 1 / (11 * 2)),
    ("constant", 1 / (7 * 30)),
  ],
)
def test_hand_made_weights(aggregation, expected):
  (batch,) = _build(aggregation=aggregation).mini_batches
  np.testing.assert_allclose(batch[1].weight, expected, rtol=1e-12)


def test_mini_batches_never_split_a_trajectory_and_count_all_members():
  result = _build(mini_batch_trajectories=2)
  where = [
    sorted({(s.group, s.trajectory) for s in batch})
    for batch in result.mini_batches
  ]
  # Members in order, two at a time; groups 1 and 3 train nothing.
  assert where == [[(0, 0), (0, 1)], [], [(2, 0)], [(2, 2)], []]
  assert result.metrics["empty_mini_batches"] == 2
  # The masked neighbour does not count: N = 1.
  assert result.mini_batches[2][0].weight == 1 / (1 * 1 * 2)
  assert result.mini_batches[0][0].weight == 1 / (2 * 2 * 3)


def test_flow_weights_sum_to_the_share_of_live_trajectories():
  (batch,) = _build().mini_batches
  total = sum(s.weight * len(s.completion_ids) for s in batch)
  np.testing.assert_allclose(total, 4 / 7)


def test_a_zero_advantage_member_of_a_live_group_is_still_trained():
  # The KL term acts on it, so leaving it out would change the gradient.
  groups = [_group(((2,), 0.0), ((2,), 0.5), ((2,), 1.0))]
  (batch,) = _build(groups).mini_batches
  assert [s.advantage == 0 for s in batch] == [False, True, False]


def test_statistics_options_reach_the_advantages():
  plain = _build().mini_batches[0][0].advantage
  turns = _build(statistics_over="turns").mini_batches[0][0].advantage
  centred = _build(normalize_by_std=False).mini_batches[0][0].advantage
  rows = np.array([1, 1, 0])
  np.testing.assert_allclose(turns, (1 / 3) / (rows.std(ddof=1) + 1e-6), 1e-6)
  assert plain > turns
  assert centred == 0.5


def test_empty_completions_are_counted_and_do_not_shrink_the_others():
  groups = [_group(((3, 0), 1.0), ((2,), 0.0))]
  result = _build(groups)
  assert result.metrics["empty_completions"] == 1
  assert result.mini_batches[0][0].weight == 1 / (2 * 1 * 3)


def test_a_trajectory_without_turns_counts_in_the_statistics():
  # Its first prompt was too long: reward 0, nothing to train, N = 2.
  result = _build([_group(((), 0.0, "max_tokens"), ((2,), 1.0))])
  (batch,) = result.mini_batches
  assert len(batch) == 1
  assert batch[0].advantage > 0
  assert batch[0].weight == 1 / (2 * 1 * 2)


def test_roles_choose_who_is_trained():
  final = trajectory_lib.ModuleCall(
    role=_GENERATOR, messages=(), completion=_call((7, 8)).completion
  )
  group = _group(((3,), 1.0), ((2,), 0.0))
  turns = [
    dataclasses.replace(t.turns[0], module_calls=t.turns[0].module_calls[:1])
    for t in group.trajectories
  ]
  group = dataclasses.replace(
    group,
    trajectories=tuple(
      dataclasses.replace(t, turns=(turn,), final_calls=(final,))
      for t, turn in zip(group.trajectories, turns, strict=True)
    ),
  )
  result = samples_lib.build_samples(
    [group],
    config_lib.LearnerConfig(trained_roles=("planner", "generator")),
    max_turns=3,
    max_completion_tokens=10,
  )
  assert [(s.turn, len(s.completion_ids)) for s in result.mini_batches[0]] == [
    (0, 3), (1, 2), (0, 2), (1, 2),
  ]  # fmt: skip


def test_untrainable_completions_are_refused_not_dropped():
  with pytest.raises(ValueError, match="no token ids"):
    samples_lib.build_samples(
      [_group(((3,), 1.0), ((2,), 0.0))],
      config_lib.LearnerConfig(trained_roles=("generator",)),
      max_turns=3,
      max_completion_tokens=10,
    )


def test_unknown_aggregation():
  with pytest.raises(ValueError, match="mean_of_means"):
    _build(aggregation="mean_of_means")


def test_no_groups():
  result = _build([])
  assert result.mini_batches == ()
  assert result.metrics["groups"] == 0


def test_two_hosts_share_one_normaliser():
  def counts_of(groups):
    seen = []
    samples_lib.build_samples(
      groups,
      config_lib.LearnerConfig(),
      max_turns=3,
      max_completion_tokens=10,
      sum_over_hosts=lambda x: seen.append(x) or x,
    )
    return seen[0]

  halves = [_GROUPS[:2], _GROUPS[2:]]
  other = [counts_of(halves[1]), counts_of(halves[0])]
  together = []
  for groups, added in zip(halves, other, strict=True):
    result = samples_lib.build_samples(
      groups,
      config_lib.LearnerConfig(),
      max_turns=3,
      max_completion_tokens=10,
      sum_over_hosts=lambda x, added=added: x + added,
    )
    together += [s.weight for s in result.mini_batches[0]]
  assert together == [s.weight for s in _build().mini_batches[0]]


# Rewards 1, 0, 0; the first member has turns of 2 and 3 tokens, the others one
# turn each, of 4 and 1. Per sample: (advantage, weight), by hand.
_STD = np.std([1, 0, 0], ddof=1)
_TURN_STD = np.std([1, 1, 0, 0], ddof=1)


@pytest.mark.parametrize(
  ("preset", "advantages", "weights"),
  [
    (
      "flow_grpo",
      [2 / 3 / _STD, 2 / 3 / _STD, -1 / 3 / _STD, -1 / 3 / _STD],
      [1 / 12, 1 / 18, 1 / 12, 1 / 3],
    ),
    (
      "agentflow_code",
      [0.5 / _TURN_STD, 0.5 / _TURN_STD, -0.5 / _TURN_STD, -0.5 / _TURN_STD],
      [1 / 10] * 4,
    ),
    (
      "grpo",
      [2 / 3 / _STD, 2 / 3 / _STD, -1 / 3 / _STD, -1 / 3 / _STD],
      [1 / 8, 1 / 12, 1 / 16, 1 / 4],
    ),
    ("dr_grpo", [2 / 3, 2 / 3, -1 / 3, -1 / 3], [1 / 90] * 4),
    (
      "dapo",
      [2 / 3 / _STD, 2 / 3 / _STD, -1 / 3 / _STD, -1 / 3 / _STD],
      [1 / 10] * 4,
    ),
    (
      "gspo",
      [2 / 3 / _STD, 2 / 3 / _STD, -1 / 3 / _STD, -1 / 3 / _STD],
      [1 / 8, 1 / 12, 1 / 16, 1 / 4],
    ),
    ("reinforce", [1, 1, 0, 0], [1 / 90] * 4),
    ("rloo", [1, 1, -0.5, -0.5], [1 / 90] * 4),
  ],
)
def test_presets_by_hand(preset, advantages, weights):
  learner = config_lib.LearnerConfig()
  learner.preset = preset
  group = _group(((2, 3), 1.0), ((4,), 0.0), ((1,), 0.0))
  (batch,) = samples_lib.build_samples(
    [group], learner, max_turns=3, max_completion_tokens=10
  ).mini_batches
  np.testing.assert_allclose(
    [s.advantage for s in batch], advantages, rtol=1e-5
  )
  np.testing.assert_allclose([s.weight for s in batch], weights, rtol=1e-12)


def test_without_a_baseline_equal_rewards_and_single_members_are_trained():
  learner = config_lib.LearnerConfig()
  learner.preset = "reinforce"
  made = samples_lib.build_samples(
    [_group(((2,), 0.5), ((3,), 0.5)), _group(((1,), 2.0))],
    learner,
    max_turns=3,
    max_completion_tokens=10,
  )
  assert [s.advantage for s in made.mini_batches[0]] == [0.5, 0.5, 2.0]
  assert made.metrics["skipped_groups"] == 0
