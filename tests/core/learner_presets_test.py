"""Presets: the table, how it is applied, and what it computes."""

import dataclasses

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors, learner_presets


def _learner(preset):
  learner = config_lib.LearnerConfig()
  learner.preset = preset
  return learner


@pytest.mark.parametrize("name", learner_presets.PRESETS)
def test_each_preset_is_a_valid_config_and_sets_what_it_says(name):
  config = config_lib.Config()
  config.learner.preset = name
  # The paper's lengths do not fit the default row; no part of a preset.
  config.learner.row_tokens = 20480
  config_validation.validate(config)
  default = config_lib.LearnerConfig()
  for field in learner_presets.FIELDS:
    expected = learner_presets.PRESETS[name].get(field, getattr(default, field))
    assert getattr(config.learner, field) == expected, field
  assert config.learner.preset == name


def test_the_default_preset_is_the_defaults():
  assert _learner("flow_grpo") == config_lib.LearnerConfig()
  # --help and config.json list what an instance holds, in this order.
  assert next(iter(vars(config_lib.LearnerConfig()).items())) == (
    "preset",
    "flow_grpo",
  )


def test_a_preset_touches_the_loss_only_and_replaces_another_one():
  learner = config_lib.LearnerConfig(lr=3e-4, row_tokens=99)
  learner.preset = "gspo"
  assert (learner.ratio, learner.clip_low) == ("sequence", 3e-4)
  learner.clip_low = 0.5  # later assignments win
  assert (learner.clip_low, learner.preset) == (0.5, "gspo")
  learner.preset = "dapo"
  assert (learner.ratio, learner.clip_low) == ("token", 0.2)
  assert (learner.lr, learner.row_tokens) == (3e-4, 99)
  # A copy keeps the values.
  assert dataclasses.replace(learner, lr=1.0).clip_high == 0.28


def test_an_unknown_preset_is_reported():
  config = config_lib.Config()
  config.learner.preset = "ppo"
  with pytest.raises(errors.ConfigError, match="learner.preset='ppo' is not"):
    config_validation.validate(config)


def test_every_named_field_exists():
  known = {field.name for field in dataclasses.fields(config_lib.LearnerConfig)}
  for name, values in learner_presets.PRESETS.items():
    assert set(values) <= set(learner_presets.FIELDS) <= known, name


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"baseline": "none"}, "no spread to divide by"),
    (
      {"baseline": "none", "normalize_by_std": False, "refill_rounds": 1},
      "trained, not refilled",
    ),
    ({"baseline": "median"}, "not one of group_mean"),
  ],
)
def test_baselines_that_can_not_work(changes, words):
  config = config_lib.Config()
  config.learner.row_tokens = 20480
  for name, value in changes.items():
    setattr(config.learner, name, value)
  with pytest.raises(errors.ConfigError, match=words):
    config_validation.validate(config)


def test_reinforce_may_sample_single_members():
  config = config_lib.Config()
  config.learner.row_tokens = 20480
  config.rollout.group_size = 1
  config.rollout.min_group = 1
  with pytest.raises(errors.ConfigError, match="group of one"):
    config_validation.validate(config)
  config.learner.preset = "reinforce"
  config_validation.validate(config)
