"""Supervised fine-tuning: from records to a run that everything loads."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from agentflow_jax.assembly import sft
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.rollout import recorder
from agentflow_jax.testing import tiny_model
from agentflow_jax.training import (
  checkpointing,
  metrics_writer,
  model_files,
  model_loading,
  progress,
)
from agentflow_jax.training import run_dir as run_dir_lib

pytestmark = pytest.mark.slow

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
_ARCH = tiny_model.tiny_architecture(vocab_size=300)
_PLANNER = messages_lib.ModuleRole.PLANNER


@dataclasses.dataclass
class FakeStop:
  """Asks to stop at the n-th question."""

  after: int = 10**9
  asked: int = 0

  @property
  def requested(self) -> bool:
    self.asked += 1
    return self.asked > self.after


def _trajectory(number, tokenizer):
  question = f"Question {number % 3}?"
  call = trajectory_lib.ModuleCall(
    role=_PLANNER,
    messages=(messages_lib.Message("user", question),),
    completion=engine_lib.Completion(
      text="Sub-Goal: find the capital",
      finish_reason=engine_lib.FinishReason.STOP,
    ),
  )
  turn = trajectory_lib.Turn(
    index=0,
    decision=trajectory_lib.Decision(
      context="none", sub_goal="find the capital", tool_name="x"
    ),
    command="",
    calls=(),
    results=(),
    verdict=trajectory_lib.Verdict(stop=True),
    module_calls=(call,),
  )
  return trajectory_lib.Trajectory(
    task=task_lib.Task(
      id=question, question=question, answers=("a",), data_source="test"
    ),
    member=number,
    turns=(turn,),
    answer="a",
    outputs=(),
    stop_reason=trajectory_lib.StopReason.VERIFIED,
    policy_version=0,
    reward=1.0,
  )


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """base/ (a model of ours) and records.jsonl."""
  path = tmp_path_factory.mktemp("start")
  tokenizer = tokenizer_training.train_tokenizer(
    ["Sub-Goal: find the capital of Laos"] * 20, 300, path / "tokenizer"
  )
  model_loading.save_model(
    path / "base", _ARCH, tiny_model.tiny_params(_ARCH), tokenizer
  )
  recorder.record_all(
    path / "records.jsonl",
    1,
    [_trajectory(number, tokenizer) for number in range(8)],
  )
  return path


def _run(start, out, stop=None, rank=0, **learner):
  config = config_lib.Config()
  config.model.checkpoint = str(start / "base")
  config.model.lora.rank = rank
  config.learner = config_lib.LearnerConfig(
    **{
      "lr": 1e-2,
      "schedule": "cosine",
      "epochs": 3,
      "mini_batch_trajectories": 4,
      "row_tokens": 96,
    }
    | learner
  )
  config.training.checkpoint_every = 2
  config.training.tensorboard = False
  with run_dir_lib.RunDir.open(out, config) as opened:
    return sft.run(
      config,
      opened,
      [str(start / "records.jsonl")],
      min_reward=1.0,
      shown=progress.Progress(),
      stop=stop or FakeStop(),
    )


def _bits(path):
  params = model_loading.load_model(path).params
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(params)]


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
  out = tmp_path_factory.mktemp("whole") / "run"
  result = _run(start, out)
  assert (result.steps, result.trajectories) == (6, 8)
  return out


def test_it_learns_what_was_said(start, whole):
  losses = [line["loss"] for line in metrics_writer.read_metrics(whole)]
  assert len(losses) == 6
  assert losses[-1] < 0.7 * losses[0]
  assert model_files.find_run(whole) == whole
  assert run_dir_lib.read_config(whole).model.checkpoint == str(start / "base")
  record = json.loads((whole / "sft.json").read_text())
  assert record["counts"]["tokenised"] == 8
  assert model_loading.load_model(whole).arch == _ARCH


def test_a_stopped_run_ends_with_the_bits_of_a_whole_one(
  start, whole, tmp_path
):
  assert _run(start, tmp_path / "cut", FakeStop(after=2)) is None
  assert _run(start, tmp_path / "cut").steps == 6
  assert _bits(tmp_path / "cut") == _bits(whole)
  loss = _run(start, tmp_path / "cut").loss  # nothing left to do
  lines = metrics_writer.read_metrics(whole)
  assert loss == lines[-1]["loss"]
  again = metrics_writer.read_metrics(tmp_path / "cut")
  assert [x["loss"] for x in again] == [x["loss"] for x in lines]


def test_other_records_are_refused(start, whole, tmp_path):
  changed = tmp_path / "start"
  changed.mkdir()
  (changed / "base").symlink_to(start / "base")
  lines = (start / "records.jsonl").read_text().splitlines(keepends=True)
  (changed / "records.jsonl").write_text("".join(lines[:3]))
  config = run_dir_lib.read_config(whole)
  with (
    run_dir_lib.RunDir.open(whole, config) as opened,
    pytest.raises(errors.UserError, match="other trajectories"),
  ):
    sft.run(
      config,
      opened,
      [str(changed / "records.jsonl")],
      min_reward=1.0,
      shown=progress.Progress(),
      stop=FakeStop(),
    )


def test_adapters_alone_are_trained_and_saved(start, tmp_path):
  assert _run(start, tmp_path / "run", rank=2, epochs=1).steps == 2
  saved = checkpointing.Checkpointer(
    tmp_path / "run" / "checkpoints", keep_last=1, keep_best=False
  )
  names = saved.read(2)["arrays"]
  assert all("_lora_" in n for n, a in names.items() if a["shape"])
  base = tiny_model.tiny_params(_ARCH)
  model = model_loading.load_model(tmp_path / "run")
  assert (model.params["embedding_VD"] == base["embedding_VD"]).all()
  up = model.params["layers"]["mlp"]["up_DF"]
  assert (up != base["layers"]["mlp"]["up_DF"]).any()


def _launch(*arguments):
  return subprocess.run(
    [sys.executable, str(_LAUNCH / "sft.py"), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command_trains_and_says_so(start, tmp_path):
  done = _launch(
    f"--checkpoint={start / 'base'}",
    f"--rollouts={start / 'records.jsonl'}",
    f"--out={tmp_path / 'run'}",
    "--config.learner.row_tokens=96",
    "--config.training.tensorboard=false",
    "--lr=1e-3",
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("SFT loss=")
  assert "steps=1 trajectories=8" in done.stdout
  config = run_dir_lib.read_config(tmp_path / "run")
  assert (config.learner.lr, config.learner.schedule) == (1e-3, "cosine")
  assert model_loading.load_model(tmp_path / "run").arch == _ARCH


@pytest.mark.parametrize(
  ("arguments", "needle"),
  [
    (["--out=x"], "checkpoint"),
    (["--checkpoint=/nonexistent"], "/nonexistent is no model"),
    (["--rollouts=/nonexistent"], "/nonexistent"),
    (["--config.learner.lr=1"], "--config.learner.lr does not apply"),
    (["--epochs=0"], "epochs"),
  ],
)
def test_mistakes_are_one_line_and_exit_code_2(
  start, tmp_path, arguments, needle
):
  if "--out=x" not in arguments:
    arguments = [
      f"--checkpoint={start / 'base'}",
      f"--rollouts={start / 'records.jsonl'}",
      f"--out={tmp_path / 'run'}",
      *arguments,
    ]
  done = _launch(*arguments)
  assert done.returncode == 2
  assert done.stdout == ""
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert needle in done.stderr
  assert not (tmp_path / "run").exists()
