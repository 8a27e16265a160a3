"""The asynchronous mode of the outer loop: what overlaps, on which weights.

The order of events is proven by events that wait for each other, with a limit
only so that a failure ends; nothing is concluded from how long things take.
"""

import asyncio
import threading

import jax
import numpy as np
import pytest
from loop_parts import (
  Run,
  arrays_of,
  bits_of,
  checkpoints_of,
  checksum,
  evaluations_of,
  lines_of,
  make_learner,
)

from agentflow_jax.core import errors
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.rollout import recorder
from agentflow_jax.training import admission, metrics_writer

_LIMIT_S = 120
_NEVER_S = 300  # cancelled long before


class WatchedLearner:
  """A learner that tells of its updates, each one iteration's."""

  def __init__(self, learner):
    self._learner = learner
    self.updates = 0
    self.before_update = lambda iteration: None
    self.after_update = lambda iteration: None

  def update(self, *args, **kwargs):
    self.updates += 1
    iteration = self.updates
    self.before_update(iteration)
    result = self._learner.update(*args, **kwargs)
    self.after_update(iteration)
    return result

  def __getattr__(self, name):
    return getattr(self._learner, name)


@pytest.fixture(scope="module")
def learner():
  return make_learner()


def _run(path, learner, **fields) -> Run:
  fields = {
    "training__max_staleness": 1,
    "training__evaluate_every": 2,
  } | fields
  return Run(path, learner, **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, learner):
  """Four iterations without a break: (its Run, its Result)."""
  run = _run(
    tmp_path_factory.mktemp("run") / "a", learner, training__checkpoint_every=1
  )
  return run, run.go()


def _recorded(run, iteration):
  path = recorder.iteration_path(run.run_dir.path, iteration)
  return list(recorder.read_trajectories(path))


async def _until(event: threading.Event) -> None:
  """Without blocking the event loop, or a thread that an update needs."""
  async with asyncio.timeout(_LIMIT_S):
    while not event.is_set():
      await asyncio.sleep(0.01)


def test_a_rollout_is_one_version_behind_the_update_it_trains(whole):
  run, _ = whole
  assert [
    {t.policy_version for t in _recorded(run, n)} for n in (1, 2, 3, 4)
  ] == [{0}, {0}, {1}, {2}]
  found = lines_of(run)
  assert [line["staleness_max"] for line in found] == [0, 1, 1, 1]
  assert [line["staleness_mean"] for line in found] == [0, 1, 1, 1]
  # The stamp tells the truth: these are the weights after so many updates.
  for version in (1, 2, 3, 4):
    saved = arrays_of(run, version)
    params = jax.tree.unflatten(
      jax.tree.structure(run.start_params),
      [saved[n] for n in sorted(saved) if n.startswith("params/")],
    )
    assert run.sampler.checksums[version] == checksum(params), version
  for n in (2, 3, 4):
    for trajectory in _recorded(run, n):
      ids = trajectory.turns[0].module_calls[0].completion.token_ids
      at = run.sampler.checksums[max(0, n - 2)]
      context = ("train", trajectory.task.id, trajectory.member, n)
      assert ids == run.sampler.sample_at(at, *context)


def test_evaluations_are_of_the_newest_weights(whole):
  run, result = whole
  assert evaluations_of(run) == [(0, "before"), (2, "during"), (4, "after")]
  versions = [
    next(
      recorder.read_trajectories(run.run_dir.evaluation_rollouts(when))
    ).policy_version
    for when in ("before", "during", "after")
  ]
  assert versions == [0, 2, 4]
  assert result.steps == 4
  # Counters are read once per rollout and evaluation, so none mixes.
  assert run.sampler.resets == 4 + 3


def test_an_evaluation_waits_for_the_rollout_in_flight(tmp_path, learner):
  """Else its weights would come into the middle of that rollout."""
  watched = WatchedLearner(learner)
  run = _run(tmp_path, watched, training__iterations=3)
  updated, ended = threading.Event(), []
  watched.after_update = lambda iteration: iteration == 2 and updated.set()

  async def in_episode(iteration):
    if iteration == 3:
      await _until(updated)
      while 2 not in [u["iteration"] for u in run.progress.updates]:
        await asyncio.sleep(0.01)  # until iteration 2 is complete
      ended.append(len(evaluations_of(run)))

  run.in_episode = in_episode
  run.go()
  assert ended == [1] * 6  # only the one before training was there
  assert evaluations_of(run) == [(0, "before"), (2, "during"), (3, "after")]


def test_the_synchronous_mode_is_the_default_and_has_no_older_weights(
  tmp_path, learner
):
  run = Run(tmp_path, learner)
  run.go()
  assert run.config.training.max_staleness == 0
  assert [line["staleness_max"] for line in lines_of(run)] == [0, 0, 0, 0]
  assert not any(n.startswith("rollout_params/") for n in bits_of(run, 4))
  for line in metrics_writer.read_metrics(run.run_dir.path):
    assert not any(name.startswith("overlap_") for name in line)


def test_the_first_iteration_is_that_of_the_synchronous_mode(
  tmp_path, learner, whole
):
  """Nothing is behind yet, so only the schedule of events differs."""
  run = Run(tmp_path, learner, training__iterations=1)
  run.go()
  asynchronous = bits_of(whole[0], 1)
  alone = bits_of(run, 1)
  assert alone == {name: asynchronous[name] for name in alone}
  assert lines_of(run) == lines_of(whole[0])[:1]


def test_an_update_and_the_next_rollout_wait_for_each_other(tmp_path, learner):
  """Neither could end alone, so each runs while the other does."""
  watched = WatchedLearner(learner)
  run = _run(tmp_path, watched, training__iterations=3)
  updating = {n: threading.Event() for n in (1, 2, 3)}
  rolling = {n: threading.Event() for n in (1, 2, 3)}

  def before_update(iteration):
    updating[iteration].set()
    if iteration < 3:
      assert rolling[iteration + 1].wait(_LIMIT_S), "no rollout beside it"

  async def in_episode(iteration):
    rolling[iteration].set()
    if iteration > 1:
      await _until(updating[iteration - 1])

  watched.before_update, run.in_episode = before_update, in_episode
  run.go()
  assert watched.updates == 3
  found = metrics_writer.read_metrics(run.run_dir.path)
  for line in found[:2]:
    assert 0 < line["overlap_s"] <= line["phase_s/learn"]
    assert 0 < line["overlap_share"] <= 1
  assert found[2]["overlap_s"] == found[2]["overlap_share"] == 0


def test_weights_in_use_survive_the_update_beside_them(tmp_path, learner):
  """The update donates its buffers; the sampler must not hold those."""
  watched = WatchedLearner(learner)
  run = _run(tmp_path, watched, training__iterations=2)
  updated = threading.Event()
  seen = []

  async def in_episode(iteration):
    if iteration == 2:
      await _until(updated)
      seen.append((run.sampler.version, checksum(run.sampler.params)))

  watched.after_update = lambda iteration: updated.set()
  run.in_episode = in_episode
  run.go()
  start = checksum(run.start_params)
  assert seen == [(0, start)] * 6
  assert run.sampler.checksums[1] != start


def test_checkpoints_do_not_change_a_token(tmp_path, learner, whole):
  run = _run(tmp_path, learner, training__checkpoint_every=100)
  run.go()
  assert bits_of(run, 4) == bits_of(whole[0], 4)
  assert lines_of(run) == lines_of(whole[0])


def test_a_checkpoint_holds_the_weights_of_the_next_rollout(whole):
  """Of iteration n: those before its update, which rollout n+1 is on."""
  run, _ = whole
  assert checkpoints_of(run).all_steps() == [1, 2, 3, 4]
  for step in (2, 3, 4):
    now, before = arrays_of(run, step), arrays_of(run, step - 1)
    older = [n for n in now if n.startswith("rollout_params/")]
    assert len(older) == len(jax.tree.leaves(run.start_params))
    for name in older:
      same = name.removeprefix("rollout_")
      np.testing.assert_array_equal(now[name], before[same], err_msg=name)


@pytest.mark.parametrize("iterations", [0, 1, 2, 3])
def test_an_extended_run_ends_with_the_bits_of_a_whole_one(
  tmp_path, learner, whole, iterations
):
  first = _run(tmp_path, learner, training__iterations=iterations)
  first.go()
  second = _run(tmp_path, learner)
  second.go()
  assert first.asked + second.asked == whole[0].asked
  assert bits_of(second, 4) == bits_of(whole[0], 4)
  assert lines_of(second) == lines_of(whole[0])


@pytest.mark.parametrize("last", [2, 3, 4])
def test_a_kill_beside_an_update_loses_nothing(tmp_path, learner, whole, last):
  run = _run(tmp_path, learner, training__checkpoint_every=1)

  def die(iteration):
    if iteration == last:
      raise KeyboardInterrupt

  run.before_episode = die
  with pytest.raises(KeyboardInterrupt):
    run.go()
  second = _run(tmp_path, learner, training__checkpoint_every=1)
  second.go()
  assert bits_of(second, 4) == bits_of(whole[0], 4)
  assert lines_of(second) == lines_of(whole[0])


@pytest.mark.parametrize(("last", "done"), [(0, 0), (1, 1), (2, 1), (4, 3)])
def test_a_stop_signal_drops_the_rollout_in_flight(
  tmp_path, learner, whole, last, done
):
  """`last`: the rollout in which it comes; `done`: iterations saved then.

  One in flight never ends by itself here, so it must be cancelled.
  """
  run = _run(tmp_path, learner, training__checkpoint_every=100)
  run.stop.requested = last == 0
  cancelled = []

  async def stop(iteration):
    if iteration != last:
      return
    run.stop.requested = True
    if last > 1:
      try:
        await asyncio.sleep(_NEVER_S)
      finally:
        cancelled.append(iteration)

  run.in_episode = stop
  assert run.go() is None
  assert cancelled == [last] * (6 if last > 1 else 0)
  assert checkpoints_of(run).all_steps() == [done]
  second = _run(tmp_path, learner)
  assert second.go() is not None
  assert bits_of(second, 4) == bits_of(whole[0], 4)
  assert lines_of(second) == lines_of(whole[0])


def test_a_stop_signal_before_an_evaluation_still_evaluates(
  tmp_path, learner, whole
):
  run = _run(tmp_path, learner)

  def stop(iteration):
    run.stop.requested = iteration == 3

  run.before_episode = stop
  assert run.go() is None
  assert checkpoints_of(run).all_steps() == [2]
  assert evaluations_of(run) == [(0, "before"), (2, "during")]
  second = _run(tmp_path, learner)
  second.go()
  assert bits_of(second, 4) == bits_of(whole[0], 4)
  assert lines_of(second) == lines_of(whole[0])
  assert evaluations_of(second) == evaluations_of(whole[0])


def test_a_failed_update_ends_the_rollout_beside_it(tmp_path, learner):
  watched = WatchedLearner(learner)
  run = _run(tmp_path, watched)
  rolling, ended = threading.Event(), []

  def diverge(iteration):
    assert rolling.wait(_LIMIT_S)
    raise learner_lib.TrainingDivergedError(f"in {iteration}")

  async def in_episode(iteration):
    if iteration == 2:
      rolling.set()
      try:
        await asyncio.sleep(_NEVER_S)
      finally:
        ended.append(iteration)

  watched.before_update, run.in_episode = diverge, in_episode
  with pytest.raises(learner_lib.TrainingDivergedError, match="in 1"):
    run.go()
  assert ended == [2] * 6


def test_a_bug_in_the_rollout_ahead_is_raised_after_the_update(
  tmp_path, learner
):
  run = _run(tmp_path, learner, training__checkpoint_every=1)

  def fail(iteration):
    if iteration == 3:
      raise ZeroDivisionError

  run.before_episode = fail
  with pytest.raises(ZeroDivisionError):
    run.go()
  assert [line["iteration"] for line in lines_of(run)] == [1, 2]


@pytest.mark.parametrize(("allowed", "at"), [(0, 2), (1, 3)])
def test_older_trajectories_are_never_trained_on(
  tmp_path, learner, allowed, at
):
  watched = WatchedLearner(learner)
  run = _run(tmp_path, watched, training__max_staleness=allowed)

  def sample_with_older_weights(iteration):
    if iteration == at:
      run.sampler.version = 0

  run.before_episode = sample_with_older_weights
  with pytest.raises(
    admission.StaleTrajectoryError,
    match=f"version 0; .*version {at - 1} .*max_staleness={allowed}",
  ):
    run.go()
  assert watched.updates == at - 1


def test_a_run_can_not_change_its_mode(tmp_path, learner):
  _run(tmp_path, learner, training__iterations=1).go()
  with pytest.raises(errors.ConfigError, match="max_staleness: 1 -> 0"):
    _run(tmp_path, learner, training__max_staleness=0)
