"""What tests of launch/evaluate.py and solve.py share: a tiny model, a quiz."""

import json
import os
import pathlib
import subprocess
import sys

import api_process

from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.testing import tiny_model

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
QUIZ = [
  {
    "id": "laos",
    "question": "What is Laos' capital?",
    "answers": ["Vientiane"],
  },
  {"id": "peru", "question": "What is Peru's capital?", "answers": ["Lima"]},
  {"id": "sum", "question": "What is 2 + 2?", "answers": ["4", "four"]},
]
VOCABULARY = 300


def write_agent(folder: pathlib.Path) -> None:
  """A checkpoint hf/ and its config mine.py."""
  tokenizer = tokenizer_training.train_tokenizer(
    ["Question: the capital of Laos Tools: Memory: " * 9],
    VOCABULARY,
    folder / "tokenizer",
  )
  arch = tiny_model.tiny_architecture(vocab_size=VOCABULARY)
  exporting.export_checkpoint(
    folder / "hf", arch, tiny_model.tiny_params(arch), tokenizer=tokenizer
  )
  (folder / "mine.py").write_text(_CONFIG)


def prepare(folder: pathlib.Path) -> None:
  """The agent, and the quiz as prepare_data.py wrote it."""
  write_agent(folder)
  lines = [json.dumps(row) for row in QUIZ]
  (folder / "quiz.jsonl").write_text("\n".join(lines) + "\n")
  done = run(
    folder,
    "prepare_data.py",
    *("--dataset=custom", "--name=quiz", "--source=quiz.jsonl"),
    *("--columns=id=id,question=question,answers=answers", "--data_dir=data"),
  )
  assert done.returncode == 0, done.stderr


def agent(trials: int, checkpoint: str = "hf") -> tuple[str, ...]:
  """Flags: the model answers the quiz."""
  return (
    "--benchmark=tfds:quiz",
    f"--checkpoint={checkpoint}",
    "--config=mine.py",
    "--max_turns=2",
    f"--trials={trials}",
  )


def _command(script: str, *arguments: str) -> list[str]:
  return [sys.executable, str(_LAUNCH / script), *arguments]


def _environment(folder: pathlib.Path) -> dict[str, str]:
  return os.environ | {
    "XDG_CACHE_HOME": str(folder / "cache"),
    "COMPATIBLE_API_KEY": api_process.KEY,
  }


def run(
  folder: pathlib.Path, script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    _command(script, *arguments),
    cwd=folder,
    env=_environment(folder),
    capture_output=True,
    text=True,
    check=False,
  )


def start(folder: pathlib.Path, *arguments: str) -> subprocess.Popen[bytes]:
  """launch/evaluate.py in the background."""
  return subprocess.Popen(
    _command("evaluate.py", *arguments),
    cwd=folder,
    env=_environment(folder),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
