"""The runs that an experiment is made of."""

import fake_launch
import pytest

from agentflow_jax.core import errors
from agentflow_jax.experiments import plan, table


def _plan(tmp_path, name="training", **changes):
  settings = fake_launch.settings(tmp_path, tmp_path / "launch", **changes)
  return plan.make(table.EXPERIMENTS[name], settings)


def _named(planned, ending):
  (found,) = [run for run in planned if str(run.run_dir).endswith(ending)]
  return found


def _flag(run, name):
  (found,) = [a for a in run.command if a.startswith(f"--{name}=")]
  return found.partition("=")[2]


def test_a_seed_s_conditions_share_one_start_model(tmp_path):
  planned = _plan(tmp_path)
  bases = [run for run in planned if run.run_dir.parent == tmp_path / "bases"]
  assert len(bases) == 2
  for seed, base in enumerate(bases):
    for name in ("untrained", "flow_grpo"):
      run = _named(planned, f"seed{seed}/{name}")
      checkpoint = _flag(run, "config.model.checkpoint")
      assert checkpoint == str(base.run_dir / "base")
      if name == "untrained":
        assert _flag(run, "checkpoint") == checkpoint
      assert run.needs == (base.run_dir,)
      assert _flag(run, "config.warm_start.enabled") == "false"
      assert _flag(run, "config.run.seed") == str(seed)


def test_runs_come_after_what_they_need(tmp_path):
  for name in table.EXPERIMENTS:
    seen = set()
    for run in _plan(tmp_path, name):
      assert set(run.needs) <= seen
      assert run.run_dir not in seen
      seen.add(run.run_dir)


def test_experiments_share_start_models(tmp_path):
  folders = [
    {
      run.run_dir
      for run in _plan(tmp_path, name)
      if "bases" in str(run.run_dir)
    }
    for name in ("training", "turn_budget", "tool_errors", "statistics")
  ]
  assert all(one == folders[0] for one in folders)
  sizes = _plan(tmp_path, "planner_size", seeds=(0,))
  assert sum("bases" in str(run.run_dir) for run in sizes) == 3


def test_only_a_small_policy_gets_room_for_its_pieces(tmp_path):
  """Start model and training alike; another model's config has its own."""
  planned = _plan(tmp_path, "flows", seeds=(0,))
  trained = _named(planned, "seed0/monolithic")
  base = next(run for run in planned if run.run_dir in trained.needs)
  for run in (base, trained):
    assert _flag(run, "config.agent.flow") == "monolithic"
    assert _flag(run, "config.sampler.max_completion_tokens") == "24"
  modular = " ".join(_named(planned, "seed0/modular").command)
  assert "max_completion_tokens" not in modular and "flow=" not in modular
  large = _plan(
    tmp_path, "flows", warm_start__enabled=False, model__checkpoint="m"
  )
  assert not [r for r in large if "max_completion" in " ".join(r.command)]


def test_an_evaluation_does_not_train(tmp_path):
  planned = _plan(tmp_path)
  untrained = _named(planned, "0/untrained")
  assert untrained.command[1].endswith("evaluate.py")
  assert _flag(untrained, "benchmark") == "worldfacts"
  trained = _named(planned, "0/flow_grpo")
  assert _flag(trained, "config.training.iterations") == "24"


def test_frozen_modules_stay_the_start_model(tmp_path):
  """What was trained is evaluated beside the modules it was trained with."""
  planned = _plan(
    tmp_path, "turn_budget", warm_start__enabled=False, model__checkpoint="m"
  )
  trained, evaluated = planned[0], _named(planned, "seed0/turns_10")
  assert _flag(evaluated, "checkpoint") == str(trained.run_dir)
  checkpoints = [
    a for a in evaluated.command if a.startswith("--config.model.checkpoint")
  ]
  assert checkpoints[-1].endswith("/m")
  evaluation = _named(_plan(tmp_path), "seed1/sft/evaluation")
  base = _flag(evaluation, "config.model.checkpoint")
  assert base.startswith(str(tmp_path / "bases" / "seed1"))


def test_several_sources_of_questions_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="one source"):
    _plan(
      tmp_path,
      "turn_budget",
      tasks__train="mix:jsonl:a@1,jsonl:b@1",
      tasks__evaluation="mix:jsonl:a@1,jsonl:b@1",
      tools__enabled=("base_generator",),
      warm_start__enabled=False,
      model__checkpoint="m",
      **{f"engines__{role}": "frozen" for role in ("executor", "verifier")},
      **{f"engines__{role}": "frozen" for role in ("generator", "tool")},
    )


def test_sft_imitates_what_the_teacher_showed(tmp_path):
  planned = _plan(tmp_path, seeds=(3,), rollout__tasks=10)
  shown = _named(planned, "seed3/demonstrations")
  sft = _named(planned, "seed3/sft")
  evaluation = _named(planned, "sft/evaluation")
  assert _flag(shown, "questions") == str(24 * 10)
  assert _flag(sft, "rollouts") == str(shown.run_dir)
  assert shown.run_dir in sft.needs
  assert _flag(evaluation, "checkpoint") == str(sft.run_dir)
  assert evaluation.needs == (sft.run_dir,)
  place = [p for p in _places(tmp_path) if p.condition == "sft"][0]
  assert place.evaluation.name == "evaluation"
  assert place.training == place.evaluation.parent


def _places(tmp_path):
  settings = fake_launch.settings(tmp_path, tmp_path)
  return plan.places(table.EXPERIMENTS["training"], settings)


def test_sft_gets_no_key_that_it_refuses(tmp_path):
  planned = _plan(
    tmp_path,
    learner__lr=3e-4,
    learner__epochs=2,
    learner__mini_batch_trajectories=8,
    learner__b2=0.99,
    sft_epochs=3,
  )
  sft = _named(planned, "seed0/sft")
  refused = (
    "learner.lr",
    "learner.epochs",
    "learner.mini_batch",
    "run.run_dir",
  )
  refused += ("model.checkpoint", "warm_start.enabled", "learner.schedule")
  for key in refused:
    assert not [a for a in sft.command if a.startswith(f"--config.{key}")]
  assert _flag(sft, "lr") == "0.0003"
  assert _flag(sft, "epochs") == "3"
  assert _flag(sft, "config.learner.b2") == "0.99"


def test_a_teacher_behind_an_api(tmp_path):
  planned = _plan(tmp_path, teacher="openai:gpt-4o")
  shown = _named(planned, "seed0/demonstrations")
  assert _flag(shown, "config.engines.planner") == "openai:gpt-4o"


def _questions_of_ones_own():
  roles = ("executor", "verifier", "generator", "tool")
  return {
    "tasks__train": "jsonl:mine.jsonl",
    "tasks__evaluation": "jsonl:mine.jsonl",
    "tools__enabled": ("base_generator",),
    **{f"engines__{role}": "openai:gpt-4o" for role in roles},
  }


@pytest.mark.parametrize(
  "changes", [{"engines__verifier": "frozen"}, _questions_of_ones_own()]
)
def test_who_the_oracle_can_not_teach_names_a_teacher(tmp_path, changes):
  changes = changes | {"warm_start__enabled": False}
  changes["model__checkpoint"] = "some/model"
  with pytest.raises(errors.UserError, match="--teacher=PROVIDER:MODEL"):
    _plan(tmp_path, **changes)
  assert _plan(tmp_path, teacher="openai:gpt-4o", **changes)
  assert _plan(tmp_path, "turn_budget", **changes)


def test_a_model_of_one_s_own_needs_no_start_model(tmp_path):
  planned = _plan(
    tmp_path,
    warm_start__enabled=False,
    model__checkpoint="some/model",
  )
  assert not [run for run in planned if "bases" in str(run.run_dir)]
  checkpoint = [
    a for a in _named(planned, "0/flow_grpo").command if "checkpoint=" in a
  ][-1]
  assert checkpoint.endswith("some/model")


def test_without_a_model_it_says_so(tmp_path):
  with pytest.raises(errors.UserError, match="model.checkpoint"):
    _plan(tmp_path, warm_start__enabled=False)


@pytest.mark.parametrize(
  "name, change, words",
  [
    ("training", {"run__seed": 3}, "--seeds"),
    ("training", {"run__run_dir": "x"}, "--out"),
    ("turn_budget", {"agent__evaluation_max_turns": 3}, "varies"),
    ("planner_size", {"model__preset": "bench_tiny"}, "varies"),
    (
      "planner_size",
      {"model__checkpoint": "x", "warm_start__enabled": False},
      "--checkpoints",
    ),
  ],
)
def test_what_the_experiment_sets_is_not_for_the_user(
  tmp_path, name, change, words
):
  with pytest.raises(errors.UserError, match=words):
    _plan(tmp_path, name, **change)


def test_a_config_that_is_wrong_is_found_before_anything_runs(tmp_path):
  with pytest.raises(errors.ConfigError, match="temperature"):
    _plan(tmp_path, sampler__temperature=0.0)


def test_the_user_s_defaults_win(tmp_path):
  run = _named(_plan(tmp_path, training__iterations=3), "0/flow_grpo")
  iterations = [a for a in run.command if "training.iterations" in a]
  assert iterations == ["--config.training.iterations=3"]


def test_identity_is_what_the_result_depends_on(tmp_path):
  def identities(**changes):
    planned = _plan(tmp_path, seeds=(0,), **changes)
    return {run.title: run.identity for run in planned}

  one = identities()
  assert identities(out=tmp_path / "moved", bases=tmp_path / "b") == one
  assert identities(sampler__slots=8) == one  # speed
  longer = identities(training__iterations=30)
  assert longer["seed 0, start model"] == one["seed 0, start model"]
  assert longer["seed 0, Flow-GRPO"] != one["seed 0, Flow-GRPO"]
  other = identities(warm_start__traces=7)
  assert not set(other.values()) & set(one.values())
  slower = identities(sft_lr=1e-5)
  changed = {title for title in one if one[title] != slower[title]}
  assert changed == {
    "seed 0, SFT on demonstrations",
    "seed 0, evaluation of SFT on demonstrations",
  }
