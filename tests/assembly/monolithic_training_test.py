"""The monolithic flow through the commands a user runs: taught, then trained.

A tiny network is taught by launch/sft.py's code to write tags, with answers at
random, on texts that a scripted policy wrote. Then launch/train.py trains it
where one of the answers is right.
"""

import asyncio
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest
import short_runs

from agentflow_jax.agent import episode
from agentflow_jax.agent import policy as policy_lib
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.assembly import sft
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.engines import scripted
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.rollout import recorder
from agentflow_jax.testing import fake_tools, tiny_model
from agentflow_jax.training import (
  metrics_writer,
  model_loading,
  progress,
  stop_signal,
)
from agentflow_jax.training import run_dir as run_dir_lib

pytestmark = pytest.mark.slow

_ROOT = pathlib.Path(__file__).parents[2]
_ARCH = tiny_model.tiny_architecture(vocab_size=300)
_POLICY = messages_lib.ModuleRole.POLICY
_TASKS = [
  task_lib.Task(
    id=f"q{n}",
    question=f"a or b, for {n}?",
    answers=("a",),
    data_source="test",
    scorer="exact_match",
  )
  for n in range(2)
]
_CALL = "<base_generator>a or b</base_generator>"
_FLAGS = {
  "agent.flow": "monolithic",
  "agent.max_turns": 2,
  "agent.evaluation_max_turns": 2,
  "agent.max_parse_failures": 2,
  "engines.tool": "frozen",
  "engines.frozen_max_tokens": 4,
  "tools.enabled": "base_generator",
  "sampler.max_prompt_tokens": 384,
  "sampler.max_completion_tokens": 24,
  "sampler.slots": 8,
  "rollout.tasks": 2,
  "rollout.group_size": 8,
  "learner.trained_roles": "policy",
  "learner.mini_batch_trajectories": 0,
  "learner.epochs": 1,
  "learner.schedule": "constant",
  "learner.warmup_steps": 0,
  "learner.row_tokens": 512,
  "warm_start.enabled": "false",
  "training.iterations": 2,
  "training.evaluate_every": 0,
  "training.tensorboard": "false",
  "training.export_hf": "false",
}


def _demonstration(member: int):
  """A scripted episode: sometimes a call, then an answer at random."""
  rng = random.Random(member)
  pieces = [_CALL] * rng.randint(0, 1) + [
    f"<answer>{rng.choice('ab')}</answer>"
  ]
  engine = scripted.ScriptedEngine(
    {_POLICY: lambda text, context: pieces[context.turn]}
  )
  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.max_turns = 2
  tool = fake_tools.EchoTool("Base_Generator_Tool", ("base_generator",))
  trajectory = asyncio.run(
    episode.run_episode(
      _TASKS[member % 2],
      settings_lib.MonolithicModules(
        policy=policy_lib.Policy(engine, engine_lib.SamplingParams()),
        count_tokens=len,
      ),
      {"base_generator": tool},
      settings_lib.EpisodeSettings.from_config(config, False),
      engine_lib.CallContext(role=_POLICY, member=member),
    )
  )
  return trajectory.replace_reward(1.0)


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> pathlib.Path:
  """A run directory with a model that writes tags."""
  path = tmp_path_factory.mktemp("taught")
  demonstrations = [_demonstration(member) for member in range(16)]
  texts = [
    call.messages[0].content + call.completion.text
    for trajectory in demonstrations
    for call in trajectory.final_calls
  ]
  tokenizer = tokenizer_training.train_tokenizer(
    texts * 4, _ARCH.vocab_size, path / "tokenizer"
  )
  model_loading.save_model(
    path / "base", _ARCH, tiny_model.tiny_params(_ARCH), tokenizer
  )
  recorder.record_all(path / "records.jsonl", 1, demonstrations)
  config = config_lib.Config()
  config.model.checkpoint = str(path / "base")
  config.agent.flow = "monolithic"
  config.learner = config_lib.LearnerConfig(
    trained_roles=("policy",),
    lr=1e-2,
    schedule="cosine",
    epochs=60,
    mini_batch_trajectories=16,
    row_tokens=512,
  )
  config.training.tensorboard = False
  with (
    stop_signal.StopSignal() as stop,
    run_dir_lib.RunDir.open(path / "run", config) as opened,
  ):
    result = sft.run(
      config,
      opened,
      [str(path / "records.jsonl")],
      min_reward=1.0,
      shown=progress.Progress(),
      stop=stop,
    )
  assert result is not None and result.trajectories == 16
  return path / "run"


def _train(run_dir, checkpoint, tasks, **flags):
  values = _FLAGS | {
    "run.run_dir": run_dir,
    "model.checkpoint": checkpoint,
    "tasks.train": f"jsonl:{tasks}",
    "tasks.evaluation": f"jsonl:{tasks}",
  }
  values |= {name.replace("__", "."): v for name, v in flags.items()}
  return subprocess.run(
    [sys.executable, "launch/train.py", "--config=configs/quickstart.py"]
    + [f"--config.{name}={value}" for name, value in values.items()],
    cwd=_ROOT,
    env=os.environ | {"AGENTFLOW_HOST_SETTINGS": "0", "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    timeout=500,
  )


def test_a_taught_policy_is_trained_token_for_token(taught, tmp_path):
  tasks = tmp_path / "tasks.jsonl"
  tasks.write_text(
    "".join(
      json.dumps(
        {
          "id": task.id,
          "question": task.question,
          "answers": task.answers,
          "data_source": "test",
          "scorer": task.scorer,
        }
      )
      + "\n"
      for task in _TASKS
    )
  )
  run = tmp_path / "run"
  done = _train(run, taught, tasks)
  assert done.returncode == 0, done.stderr[-3000:]
  lines = metrics_writer.read_metrics(run)
  assert [line["step"] for line in lines] == [1, 2]
  for line in lines:
    # What was sampled behind kept prefixes is what the learner scored.
    assert line["grad_norm"] > 0 and line["drift_max"] < 1e-4
    assert line["masked_members"] == 0
  assert (run / "report.html").stat().st_size > 10_000
  calls = 0
  for trajectory in recorder.read_trajectories(recorder.iteration_path(run, 1)):
    written = [c for turn in trajectory.turns for c in turn.module_calls]
    written += trajectory.final_calls
    assert {str(call.role) for call in written} == {"policy"}
    for before, after in zip(written, written[1:], strict=False):
      ids = before.completion.prompt_token_ids + before.completion.token_ids
      assert after.completion.prompt_token_ids[: len(ids)] == ids
      calls += 1
  assert calls  # some had several pieces


def test_a_role_that_is_not_the_policys_is_one_line(taught, tmp_path):
  done = _train(
    tmp_path / "run", taught, "none", learner__trained_roles="planner"
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  for word in ("agent.flow='monolithic'", "learner.trained_roles", "policy"):
    assert word in line


def test_a_policy_is_warm_started_and_trained(tmp_path):
  """From random weights, with the quickstart's config and two more keys."""
  run = tmp_path / "run"
  done = _train(
    run,
    "",
    tmp_path,
    **short_runs.FLAGS
    | {
      "sampler.slots": 8,
      "tasks.train": "worldfacts",
      "tasks.evaluation": "worldfacts",
      "tasks.data_dir": tmp_path / "data",
      "tools.enabled": "wikipedia_search,python_coder,base_generator",
      "engines.tool": "scripted:worldfacts",
      "warm_start.enabled": "true",
      "training.iterations": 1,
      "training.evaluate_every": 0,
      "agent.max_parse_failures": 5,
    },
  )
  assert done.returncode == 0, done.stderr[-3000:]
  (line,) = metrics_writer.read_metrics(run)
  assert line["completion_tokens"] > 0
  for trajectory in recorder.read_trajectories(recorder.iteration_path(run, 1)):
    calls = [c for turn in trajectory.turns for c in turn.module_calls]
    assert {str(call.role) for call in calls} <= {"policy"}
  # Tags are tokens of its tokenizer.
  tokenizer = model_loading.load_model(run / "base").tokenizer
  for tag in ("<search>", "<answer>", "</answer>"):
    assert len(tokenizer.encode(tag)) == 1
