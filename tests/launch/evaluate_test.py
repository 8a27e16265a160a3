"""launch/evaluate.py as a user runs it: a checkpoint of our own, offline."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.testing import tiny_model

pytestmark = pytest.mark.slow

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
_CONFIG = """
from agentflow_jax.core import config as config_lib

def get_config():
  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.memory_tokens = 128
  config.agent.max_episode_tokens = 2048
  config.agent.max_parse_failures = 9
  config.tasks.data_dir = "data"
  config.tools.enabled = ("wikipedia_search",)
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, "scripted:worldfacts")
  config.rollout.max_concurrent_episodes = 1
  config.sampler.slots = 2
  config.sampler.max_prompt_tokens = 480
  config.sampler.max_completion_tokens = 8
  config.sampler.prefill_chunk_tokens = 32
  return config
"""
_QUIZ = [
  {
    "id": "laos",
    "question": "What is Laos' capital?",
    "answers": ["Vientiane"],
  },
  {"id": "peru", "question": "What is Peru's capital?", "answers": ["Lima"]},
  {"id": "sum", "question": "What is 2 + 2?", "answers": ["4", "four"]},
]
_TRIALS = 8
_AGENT = (
  "--benchmark=tfds:quiz",
  "--checkpoint=hf",
  "--config=mine.py",
  "--max_turns=2",
  f"--trials={_TRIALS}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """A checkpoint, a config, and a benchmark that prepare_data.py wrote."""
  folder = tmp_path_factory.mktemp("evaluate")
  tokenizer = tokenizer_training.train_tokenizer(
    ["Question: the capital of Laos Tools: Memory: " * 9],
    300,
    folder / "tokenizer",
  )
  arch = tiny_model.tiny_architecture(vocab_size=300)
  exporting.export_checkpoint(
    folder / "hf", arch, tiny_model.tiny_params(arch), tokenizer=tokenizer
  )
  (folder / "mine.py").write_text(_CONFIG)
  lines = [json.dumps(row) for row in _QUIZ]
  (folder / "quiz.jsonl").write_text("\n".join(lines) + "\n")
  done = _run(
    folder,
    "prepare_data.py",
    *("--dataset=custom", "--name=quiz", "--source=quiz.jsonl"),
    *("--columns=id=id,question=question,answers=answers", "--data_dir=data"),
  )
  assert done.returncode == 0, done.stderr
  return folder


def _command(script, *arguments):
  return [sys.executable, str(_LAUNCH / script), *arguments]


def _environment(folder):
  return os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}


def _run(folder, script, *arguments):
  return subprocess.run(
    _command(script, *arguments),
    cwd=folder,
    env=_environment(folder),
    capture_output=True,
    text=True,
    check=False,
  )


def _start_and_kill(folder, journal):
  """Strikes as soon as two episodes are on disk."""
  process = subprocess.Popen(
    _command("evaluate.py", *_AGENT, "--out=out/a"),
    cwd=folder,
    env=_environment(folder),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while process.poll() is None:
    if journal.exists() and journal.read_bytes().count(b"\n") >= 2:
      process.send_signal(signal.SIGKILL)
    time.sleep(0.01)
  assert process.returncode == -signal.SIGKILL
  return journal.read_bytes()


def test_killed_and_restarted_it_repeats_nothing(folder):
  journal = folder / "out/a/tfds_quiz/trajectories.jsonl"
  before = _start_and_kill(folder, journal)
  whole = before[: before.rfind(b"\n") + 1]
  done = _run(folder, "evaluate.py", *_AGENT, "--out=out/a")
  assert done.returncode == 0, done.stderr
  known, wanted = len(whole.splitlines()), _TRIALS * len(_QUIZ)
  head = f"tfds_quiz: {known} of {wanted} are done"
  assert head in done.stderr
  lines = journal.read_bytes()
  assert lines.startswith(whole)
  records = [json.loads(line) for line in lines.splitlines()]
  keys = {(record["task"]["id"], record["member"]) for record in records}
  assert len(keys) == len(records) == wanted
  planner = records[0]["turns"][0]["module_calls"][0]["completion"]
  assert planner["token_ids"]
  assert len(planner["logprobs"]) == len(planner["token_ids"])
  assert done.stdout.startswith("tfds_quiz: ")
  assert done.stdout.endswith("report: out/a/report.html\n")
  found = json.loads((folder / "out/a/results.json").read_text())["tfds_quiz"]
  assert (found["questions"], found["missing"], found["masked"]) == (3, 0, 0)
  assert "## Accuracy" in (folder / "out/a/report.md").read_text()
  page = (folder / "out/a/report.html").read_text()
  assert page.startswith("<!DOCTYPE html>")
  assert "http" not in page
  _compare(folder)


def _compare(folder):
  """With an oracle, which is right everywhere."""
  done = _run(
    folder,
    "evaluate.py",
    *("--solver=oracle", "--benchmark=tfds:quiz", "--config=mine.py"),
    *(f"--trials={_TRIALS}", "--out=out/b"),
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("tfds_quiz: 100.0 % [100.0, 100.0] of 3 ")
  done = _run(folder, "evaluate.py", "--compare", "out/a", "out/b")
  assert done.returncode == 0, done.stderr
  assert "A = out/a, B = out/b" in done.stdout
  (row,) = [
    line for line in done.stdout.splitlines() if line.startswith("| tfds_quiz")
  ]
  assert row.split("|")[4].strip() == "100.0"


@pytest.mark.parametrize(
  ("arguments", "needle"),
  [
    (["--out=out/c"], "name at least one --benchmark, and --out"),
    (["--benchmark=quizz", "--out=out/c"], "there is no benchmark 'quizz'"),
    (["--judge=openai:x"], "unknown flag '--judge'"),
    (["--compare", "out/none", "out/none"], "no benchmark"),
  ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, arguments, needle):
  done = _run(folder, "evaluate.py", *arguments)
  assert (done.returncode, done.stdout) == (2, "")
  line = done.stderr.splitlines()[-1]
  assert line.startswith("error: ")
  assert needle in line
