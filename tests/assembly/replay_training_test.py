"""A training run recorded, and repeated with what it asked gone.

A real network, its sampler and its learner, two iterations with an update in
between; commands and verdicts come from an API, passages from an index. The
replay has neither, nor the answers of the policy itself: what it does again is
to learn.
"""

import asyncio
import contextlib
import dataclasses
import json
import shutil

import api_process
import assembled_world
import numpy as np
import plan_model
import pytest

from agentflow_jax.assembly import trainer
from agentflow_jax.core import providers
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import local, remote, scripted
from agentflow_jax.rollout import recorder
from agentflow_jax.tools import bm25_index
from agentflow_jax.training import (
  array_store,
  metrics_writer,
  progress,
  stop_signal,
)
from agentflow_jax.training import run_dir as run_dir_lib

pytestmark = pytest.mark.slow

_API = "compatible:echo"
_API_ROLES = ("executor", "verifier", "tool")
_ITERATIONS = 2
# The plan goes wrong about every second time.
_LOGIT = 5.0
# Of clocks, or of calls that a replay does not make.
_NOT_REPEATED = (
  *("time_s", "tokens_per_s", "phase_s/", "overlap_"),
  *("engine/", "replay/", "sampler/", "tool/"),
)
# Right is the title of the page that a good plan finds.
_QUESTIONS = ("Where is the kip spent?", "Where is Lao spoken?")


def _config(tmp_path, checkpoint, api):
  tasks = tmp_path / "tasks.jsonl"
  tasks.write_text(
    "".join(
      json.dumps({"id": str(n), "question": q, "answers": "Laos"}) + "\n"
      for n, q in enumerate(_QUESTIONS)
    )
  )
  index = tmp_path / "index"
  bm25_index.build(
    [bm25_index.Passage(id="1", title="Laos", text="A country in Asia.")], index
  )
  return assembled_world.config(
    model__checkpoint=str(checkpoint),
    tasks__train=f"jsonl:{tasks}",
    tasks__evaluation=f"jsonl:{tasks}",
    tasks__data_dir=str(tmp_path / "data"),
    engines__generator=providers.SCRIPTED_SEARCH,
    agent__max_turns=1,
    agent__evaluation_max_turns=1,
    agent__memory_tokens=128,
    tools__enabled=("wikipedia_search",),
    tools__search_index_dir=str(index),
    sampler__slots=8,
    sampler__max_prompt_tokens=448,
    sampler__max_completion_tokens=8,
    sampler__decode_steps=4,
    sampler__prefill_chunk_tokens=64,
    learner__row_tokens=512,
    learner__lr=0.05,
    learner__schedule="constant",
    learner__warmup_steps=0,
    learner__epochs=1,
    learner__mini_batch_trajectories=0,
    learner__train_embeddings=True,
    rollout__tasks=2,
    rollout__group_size=4,
    rollout__replay="record",
    rollout__replay_dir=str(tmp_path / "replay"),
    training__iterations=_ITERATIONS,
    training__evaluate_every=0,
    training__tensorboard=False,
    training__export_hf=False,
    training__write_report=False,
    **{f"engines__{role}": _API for role in _API_ROLES},
    **{f"engines__{role}_options__base_url": api for role in _API_ROLES},
  )


@dataclasses.dataclass(frozen=True)
class _Run:
  """What a run left behind, without times."""

  trajectories: list  # by iteration
  metrics: list
  evaluations: list
  arrays: dict


def _train(config, path):
  with (
    stop_signal.StopSignal() as stop,
    run_dir_lib.RunDir.open(path, config) as opened,
  ):
    result = asyncio.run(
      trainer.train(config, opened, progress.Progress(), stop)
    )
  assert result is not None
  last = path / "checkpoints" / f"step_{_ITERATIONS:08d}"
  info = array_store.read_info(last)
  assert info is not None
  targets = {
    name: np.empty(array["shape"], array["dtype"])
    for name, array in info["arrays"].items()
  }
  return _Run(
    trajectories=[
      [
        _timeless(trajectory)
        for trajectory in recorder.read_trajectories(
          recorder.iteration_path(path, iteration)
        )
      ]
      for iteration in range(1, _ITERATIONS + 1)
    ],
    metrics=[
      {k: v for k, v in line.items() if not k.startswith(_NOT_REPEATED)}
      for line in metrics_writer.read_metrics(path)
    ],
    evaluations=metrics_writer.read_evaluations(path),
    arrays=array_store.restore(last, targets),
  )


def _timeless(trajectory):
  """Without durations, which are of the machine."""
  return dataclasses.replace(
    trajectory,
    duration_s=0.0,
    turns=tuple(
      dataclasses.replace(
        turn,
        duration_s=0.0,
        results=tuple(
          dataclasses.replace(result, duration_s=0.0) for result in turn.results
        ),
      )
      for turn in trajectory.turns
    ),
  )


def _assert_worth_repeating(run):
  """Tools and engines were asked, the second time with other weights."""
  by_iteration = [
    [t.turns[0].module_calls[0].completion for t in trajectories]
    for trajectories in run.trajectories
  ]
  for version, completions in enumerate(by_iteration):
    assert {c.policy_version for c in completions} == {version}
    assert all(c.token_ids for c in completions)
  assert len(run.metrics) == _ITERATIONS
  assert all(line["grad_norm"] > 0 for line in run.metrics)
  everything = [t for each in run.trajectories for t in each]
  assert {t.reward for t in everything} == {0.0, 1.0}
  assert any(t.turns[0].results for t in everything)
  failures = [
    isinstance(t.turns[0].decision, trajectory_lib.ParseFailure)
    for t in everything
  ]
  assert any(failures) and not all(failures)


@contextlib.contextmanager
def _nobody_answers():
  """No engine of a run can be asked, its own sampler included."""

  async def generate(self, *unused):
    raise AssertionError(f"{type(self).__name__} was asked")

  with pytest.MonkeyPatch.context() as patch:
    for kind in (
      *(local.LocalEngine, remote.RemoteEngine, scripted.ScriptedEngine),
    ):
      patch.setattr(kind, "generate", generate)
    yield


def test_a_run_learns_the_same_when_what_it_asked_is_gone(
  tmp_path, monkeypatch
):
  checkpoint = plan_model.write(tmp_path / "model", _LOGIT)
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)
  with api_process.serve() as api:
    config = _config(tmp_path, checkpoint, api.base_url)
    recorded = _train(config, tmp_path / "recorded")
    assert api.stats()["requests"]["echo"] >= 8
  _assert_worth_repeating(recorded)

  monkeypatch.delenv("COMPATIBLE_API_KEY")
  shutil.rmtree(tmp_path / "index")
  config.rollout.replay = "replay"
  with _nobody_answers():
    again = _train(config, tmp_path / "again")
  assert again.trajectories == recorded.trajectories
  # As text: nan is not equal to itself.
  assert repr(again.metrics) == repr(recorded.metrics)
  assert repr(again.evaluations) == repr(recorded.evaluations)
  assert again.arrays.keys() == recorded.arrays.keys()
  for name, array in recorded.arrays.items():
    assert array.tobytes() == again.arrays[name].tobytes(), name
