"""The table of experiments: every entry can run, and asks something."""

import pathlib
import re

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors
from agentflow_jax.experiments import measures, runs, table
from agentflow_jax.models import presets
from agentflow_jax.training import overrides

_ROOT = pathlib.Path(__file__).parents[2]
_ALL = list(table.EXPERIMENTS.values())


@pytest.fixture(scope="module")
def quickstart() -> config_lib.Config:
  namespace = {}
  source = (_ROOT / "configs" / "quickstart.py").read_text()
  exec(compile(source, "quickstart.py", "exec"), namespace)
  return namespace["get_config"]()


@pytest.mark.parametrize("experiment", _ALL, ids=lambda one: one.name)
def test_overrides_are_config_keys_of_the_right_type(experiment, quickstart):
  for condition in experiment.conditions:
    changed = {
      **table.DEFAULTS,
      **experiment.settings,
      **condition.base,
      **condition.overrides,
    }
    assert set(changed) <= set(config_validation.field_types())
    config_validation.validate(runs.resolve(quickstart, changed))
    if preset := condition.base.get("model.preset"):
      assert preset in presets.ARCHITECTURES


@pytest.mark.parametrize("experiment", _ALL, ids=lambda one: one.name)
def test_overrides_survive_the_command_line(experiment):
  for condition in experiment.conditions:
    given = {**table.DEFAULTS, **experiment.settings, **condition.overrides}
    given = {**given, **condition.base}
    argv = ["x", *runs.flags(given)]
    _, _, *found = overrides.normalise(argv, "x.py")
    # Tuples are spelt out; spelt out again they are the same.
    assert overrides.normalise(["x", *found], "x.py")[2:] == found
    assert {f.partition("=")[0] for f in found} == {
      f"--config.{key}" for key in given
    }
    plain = {key: v for key, v in given.items() if not isinstance(v, tuple)}
    assert set(runs.flags(plain)) <= set(found)


@pytest.mark.parametrize("experiment", _ALL, ids=lambda one: one.name)
def test_conditions_differ(experiment):
  conditions = experiment.conditions
  assert len({one.name for one in conditions}) == len(conditions)
  assert len({one.label for one in conditions if one.shown}) == len(
    experiment.shown()
  )
  what = [
    (one.program, one.start, sorted(one.overrides.items()))
    + tuple(one.base.items())
    for one in conditions
  ]
  assert len({str(one) for one in what}) == len(conditions)
  for number, one in enumerate(conditions):
    assert re.fullmatch(r"[a-z0-9_]+", one.name)
    assert one.program in (table.TRAIN, table.SFT, table.EVALUATE)
    earlier = [other.name for other in conditions[:number]]
    assert not one.start or one.start in earlier


@pytest.mark.parametrize("experiment", _ALL, ids=lambda one: one.name)
def test_what_is_drawn_is_measured(experiment):
  drawn = {*experiment.panels, *filter(None, [experiment.curve])}
  assert drawn <= set(measures.TITLES)
  assert experiment.question.endswith("?")


def test_the_issue_s_turn_budgets():
  budgets = [
    one.overrides["agent.evaluation_max_turns"]
    for one in table.EXPERIMENTS["turn_budget"].shown()
  ]
  assert budgets == [1, 2, 3, 5, 10]


def test_models_of_one_s_own_replace_the_sizes():
  made = table.per_checkpoint(
    table.EXPERIMENTS["planner_size"], {"0.5B": "a/0.5B", "7B": "b/7B"}
  )
  assert [one.label for one in made.conditions] == ["0.5B", "7B"]
  assert made.conditions[1].base == {"model.checkpoint": "b/7B"}
  with pytest.raises(errors.UserError, match="one start model.*planner_size"):
    table.per_checkpoint(table.EXPERIMENTS["training"], {"a": "b"})


def test_every_experiment_is_documented():
  text = (_ROOT / "docs" / "experiments.md").read_text()
  for experiment in _ALL:
    assert f"--name={experiment.name}" in text
