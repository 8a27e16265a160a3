"""The outer loop with a real learner and checkpointer and a fake policy."""

import io

import numpy as np
import pytest
from loop_parts import (
  EVALUATION_TASKS,
  Run,
  bits_of,
  checkpoints_of,
  evaluations_of,
  lines_of,
  make_learner,
)

from agentflow_jax.rollout import recorder
from agentflow_jax.training import metrics_writer
from agentflow_jax.training import progress as progress_lib


@pytest.fixture(scope="module")
def learner():
  return make_learner()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, learner):
  """Four iterations without a break: (its Run, its Result)."""
  run = Run(
    tmp_path_factory.mktemp("run") / "a", learner, training__evaluate_every=2
  )
  return run, run.go()


def test_every_iteration_has_a_line_of_metrics(whole):
  run, _ = whole
  lines = metrics_writer.read_metrics(run.run_dir.path)
  assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
  assert [line["step"] for line in lines] == [1, 2, 3, 4]
  for line in lines:
    assert line["trajectories"] == 6
    assert line["planner_tokens"] == 18  # 6 episodes of one turn of 3 ids
    # Nine of a group, unless its three rewards happen to be equal.
    informative = 2 - line["skipped_groups"]
    assert line["tokens"] == line["trained_tokens"] == 9 * informative > 0
    assert line["stop/verified"] == 6
    assert line["tool_mix/Echo_Tool"] == 1
    assert line["sampler/requests"] == 6
    assert line["refilled_groups"] == line["masked_members"] == 0
    assert line["grad_norm"] > 0 and line["drift_mean"] > 0
    assert line["tokens_per_s"] > 0
    for phase in ("rollout", "learn", "sync", "record"):
      assert line[f"phase_s/{phase}"] >= 0
  times = [line["time_s"] for line in lines]
  assert times == sorted(times) and times[0] > 0
  assert len({line["loss"] for line in lines}) == 4


def test_time_between_iterations_is_counted_in_the_next_line(whole):
  """An evaluation or a checkpoint must not vanish from the wall clock."""
  lines = metrics_writer.read_metrics(whole[0].run_dir.path)
  evaluated = ["phase_s/evaluate" in line for line in lines]
  saved = ["phase_s/checkpoint" in line for line in lines]
  assert evaluated == [True, False, True, False]  # before, and after 2
  assert saved == [False, False, True, False]


def test_evaluations_come_before_during_and_after(whole):
  run, result = whole
  assert evaluations_of(run) == [(0, "before"), (2, "during"), (4, "after")]
  lines = metrics_writer.read_evaluations(run.run_dir.path)
  assert {line["questions"] for line in lines} == {len(EVALUATION_TASKS)}
  for when in ("before", "during", "after"):
    recorded = recorder.read_trajectories(run.run_dir.evaluation_rollouts(when))
    assert [t.task for t in recorded] == EVALUATION_TASKS
  # Each was answered by the weights of its time.
  versions = [
    next(
      recorder.read_trajectories(run.run_dir.evaluation_rollouts(when))
    ).policy_version
    for when in ("before", "during", "after")
  ]
  assert versions == [0, 2, 4]
  assert result.before == lines[0]["accuracy"]
  assert result.after == lines[2]["accuracy"]
  assert result.families == lines[2]["families"]
  assert set(result.families) == {"even", "odd"}
  assert (result.questions, result.steps) == (4, 4)
  assert result.seconds > lines[0].get("time_s", 0)


def test_the_sampler_gets_the_weights_of_every_step(whole):
  run, _ = whole
  assert run.sampler.versions == [1, 2, 3, 4]
  # Once per iteration and per evaluation, so that neither counts the other.
  assert run.sampler.resets == 4 + 3


def test_progress_is_told_and_taken_down(whole):
  run, _ = whole
  assert run.progress.started == (4, 0)
  assert run.progress.stopped == 1
  for name in ("iteration", "step"):
    assert [u[name] for u in run.progress.updates] == [0, 1, 2, 2, 3, 4, 4]


def test_every_value_that_progress_shows_is_told_by_the_loop(whole):
  """The display leaves out what it is not told: a renamed metric is silent."""
  run, _ = whole
  told = {"step", "reward", "turns", "tool_error_rate", "tokens_per_s"}
  scored = {"accuracy", "accuracy/even", "accuracy/odd"}
  shown = progress_lib.Progress(file=io.StringIO())
  shown.start(4)
  for number, update in enumerate(run.progress.updates):
    is_evaluation = number in (0, 3, 6)
    assert (scored | {"step"} if is_evaluation else told) <= set(update)
    shown.update(update)
  assert shown.line().startswith("iteration 4/4, step 4, reward ")
  labels = ("turns", "tool errors", "tokens/s", "accuracy", "reward")
  families = ("accuracy even", "accuracy odd", "reward even", "reward odd")
  for label in (*labels, *families):
    assert f", {label} " in shown.line()


def test_checkpoints_come_as_often_as_asked_and_at_the_end(tmp_path, learner):
  run = Run(
    tmp_path, learner, training__iterations=5, training__evaluate_every=4
  )
  run.go()
  saved = checkpoints_of(run)
  assert saved.all_steps() == [2, 4, 5]
  extra = saved.read(4)["extra"]
  assert extra.pop("seconds") > 0
  assert extra == {"iteration": 4, "task_position": 8, "policy_version": 4}
  # Only weights that were evaluated can be the best ones.
  accuracies = {
    line["iteration"]: line["accuracy"]
    for line in metrics_writer.read_evaluations(run.run_dir.path)
  }
  assert [saved.read(step)["metrics"] for step in (2, 4, 5)] == [
    {},
    {"accuracy": accuracies[4]},
    {"accuracy": accuracies[5]},
  ]


def test_only_the_asked_iterations_are_recorded(tmp_path, learner):
  run = Run(tmp_path, learner, rollout__record_every=2)
  run.go()
  files = sorted((tmp_path / "rollouts" / "train").iterdir())
  assert files == [recorder.iteration_path(tmp_path, n) for n in (2, 4)]
  recorded = list(recorder.read_trajectories(files[0]))
  assert [(2, t.task.id, t.member) for t in recorded] == [
    asked for asked in run.asked if asked[0] == 2
  ]
  assert {t.policy_version for t in recorded} == {1}


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_resumed_run_ends_with_the_bits_of_a_whole_one(
  tmp_path, learner, whole, iterations
):
  """The run is extended, which is a resume at the end of an iteration."""
  first = Run(
    tmp_path,
    learner,
    training__iterations=iterations,
    training__evaluate_every=2,
  )
  first.go()
  second = Run(tmp_path, learner, training__evaluate_every=2)
  result = second.go()
  oracle, expected = whole
  assert second.progress.started == (4, iterations)
  assert second.sampler.versions == list(range(iterations, 5))
  assert first.asked + second.asked == oracle.asked
  assert bits_of(second, 4) == bits_of(oracle, 4)
  assert lines_of(second) == lines_of(oracle)
  assert evaluations_of(second)[0] == (0, "before")
  assert "before" not in [u.get("when") for u in second.progress.updates]
  assert (result.before, result.after, result.families, result.steps) == (
    expected.before,
    expected.after,
    expected.families,
    expected.steps,
  )


def test_what_lies_beyond_the_checkpoint_is_done_again(
  tmp_path, learner, whole
):
  """As after a kill in iteration 4: three lines, but two iterations saved."""
  run = Run(tmp_path, learner, training__evaluate_every=2)

  def die(iteration):
    if iteration == 4:
      raise KeyboardInterrupt

  run.before_episode = die
  with pytest.raises(KeyboardInterrupt):
    run.go()
  assert run.progress.stopped == 1
  assert len(lines_of(run)) == 3
  assert checkpoints_of(run).all_steps() == [2]
  second = Run(tmp_path, learner, training__evaluate_every=2)
  second.go()
  assert bits_of(second, 4) == bits_of(whole[0], 4)
  assert lines_of(second) == lines_of(whole[0])


def test_wall_time_adds_up_over_attempts(tmp_path, learner):
  first = Run(tmp_path, learner, training__iterations=1).go()
  second = Run(tmp_path, learner, training__iterations=2)
  second.trainer._started_s -= 1000
  assert second.go().seconds > 1000 + first.seconds - 1
  # The line is of the whole run, too.
  assert metrics_writer.read_metrics(tmp_path)[1]["time_s"] > 1000


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_stop_signal_saves_what_is_done(tmp_path, learner, whole, last):
  """`last` is the iteration in which the signal comes; 0 is before all."""
  run = Run(
    tmp_path,
    learner,
    training__checkpoint_every=100,
    training__evaluate_every=2,
  )
  run.stop.requested = last == 0

  def stop(iteration):
    run.stop.requested = iteration == last

  run.before_episode = stop
  assert run.go() is None
  assert checkpoints_of(run).all_steps() == [last]
  assert run.progress.stopped == 1
  second = Run(tmp_path, learner, training__evaluate_every=2)
  assert second.go() is not None
  assert bits_of(second, 4) == bits_of(whole[0], 4)
  assert lines_of(second) == lines_of(whole[0])


def test_a_stop_signal_in_the_last_iteration_changes_nothing(tmp_path, learner):
  run = Run(tmp_path, learner, training__iterations=1)

  def stop(iteration):
    run.stop.requested = True

  run.before_episode = stop
  assert run.go() is not None
  assert checkpoints_of(run).all_steps() == [1]


def test_a_complete_run_started_again_only_reads_its_result(tmp_path, learner):
  first = Run(tmp_path, learner, training__iterations=2).go()
  again = Run(tmp_path, learner, training__iterations=2)
  result = again.go()
  assert again.asked == []
  assert (result.before, result.after, result.steps) == (
    first.before,
    first.after,
    first.steps,
  )


def test_a_stopped_run_may_end_where_it_is(tmp_path, learner):
  """Fewer iterations are left than were asked for: it is only evaluated."""
  run = Run(tmp_path, learner, training__checkpoint_every=100)

  def stop(iteration):
    run.stop.requested = iteration == 2

  run.before_episode = stop
  assert run.go() is None
  result = Run(tmp_path, learner, training__iterations=2).go()
  assert result.steps == 2
  assert evaluations_of(run) == [(0, "before"), (2, "after")]


def test_no_iterations_evaluate_and_save_the_start_model(tmp_path, learner):
  run = Run(tmp_path, learner, training__iterations=0)
  result = run.go()
  assert result.before == result.after
  assert result.steps == 0
  assert checkpoints_of(run).all_steps() == [0]


def test_the_first_evaluation_can_be_left_out(tmp_path, learner):
  run = Run(
    tmp_path,
    learner,
    training__evaluate_first=False,
    training__iterations=1,
  )
  assert run.go().before is None
  assert evaluations_of(run) == [(1, "after")]


def test_nothing_to_compare_takes_no_step(tmp_path, learner):
  run = Run(
    tmp_path, learner, reward=lambda trajectory: 1.0, training__iterations=2
  )
  result = run.go()
  assert result.steps == 0
  lines = lines_of(run)
  assert [line["skipped_groups"] for line in lines] == [2, 2]
  assert [line["samples"] for line in lines] == [0, 0]
  assert "loss" not in lines[0]
  start = Run(tmp_path / "b", learner, training__iterations=0)
  start.go()
  first, last = bits_of(start, 0), bits_of(run, 2)
  assert {n: b for n, b in last.items() if n.startswith("params/")} == {
    n: b for n, b in first.items() if n.startswith("params/")
  }


def test_epochs_and_mini_batches_are_optimizer_steps(tmp_path, learner):
  run = Run(
    tmp_path,
    learner,
    learner__epochs=2,
    learner__mini_batch_trajectories=3,
    training__iterations=1,
  )
  assert run.go().steps == 4  # 2 epochs of 2 groups of 3
  (line,) = lines_of(run)
  assert line["step"] == 4
  assert line["tokens"] == 9  # the mean of the steps', not their sum


def test_recomputed_logprobs_are_those_before_the_first_step(tmp_path, learner):
  """However far the policy moves, drift is that of the weights that sampled."""
  drift, ratio = {}, {}
  for epochs in (1, 2):
    run = Run(
      tmp_path / str(epochs),
      learner,
      learner__recompute_behavior=True,
      learner__epochs=epochs,
      training__iterations=1,
    )
    run.go()
    (line,) = lines_of(run)
    drift[epochs], ratio[epochs] = line["drift_mean"], line["ratio_mean"]
  assert drift[1] > 0
  np.testing.assert_allclose(drift[2], drift[1], rtol=1e-6)
  np.testing.assert_allclose(ratio[1], 1, rtol=1e-5)
  assert abs(ratio[2] - 1) > 1e-3
