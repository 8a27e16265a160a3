"""A planner that searches a corpus, from its files to its evaluation."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_ROOT = pathlib.Path(__file__).parents[2]
_NAMES = [
  f"{first}{last}" for first in "BDKLMR" for last in ("ora", "ilo", "an")
]
_FLAGS = {
  "tasks.train": "mix:tfds:made_train@1",
  "tasks.evaluation": "tfds:made_dev",
  "model.preset": "worldfacts_planner_small",
  "agent.max_turns": 2,
  "agent.evaluation_max_turns": 2,
  "agent.memory_tokens": 220,
  "sampler.max_prompt_tokens": 320,
  "sampler.prefill_chunk_tokens": 32,
  "sampler.slots": 8,
  "sampler.max_completion_tokens": 16,
  "rollout.tasks": 2,
  "rollout.group_size": 4,
  "learner.mini_batch_trajectories": 0,
  "learner.epochs": 1,
  "learner.warmup_steps": 0,
  "learner.row_tokens": 384,
  "warm_start.vocab_size": 512,
  "warm_start.copy_steps": 2,
  "warm_start.copy_batch_tokens": 256,
  "warm_start.traces": 16,
  "warm_start.plans_per_prompt": 3,
  "warm_start.imitation_steps": 3,
  "training.iterations": 1,
  "training.tensorboard": "false",
  "training.export_hf": "false",
  "training.write_report": "false",
}


def _launch(cwd, script, *flags) -> str:
  done = subprocess.run(
    [sys.executable, _ROOT / "launch" / f"{script}.py", *flags],
    cwd=cwd,
    env=os.environ
    | {
      "AGENTFLOW_HOST_SETTINGS": "0",
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout.splitlines()[-1]


def _write(path: pathlib.Path, rows) -> None:
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _corpus(name: str, number: int) -> list[dict]:
  """A song and its singer, whose page the song's page names."""
  return [
    {"id": f"s{number}", "title": f"{name} Song", "text": f"Sung by {name}."},
    {"id": f"p{number}", "title": name, "text": f"Born in {1900 + number}."},
  ]


def _prepare(folder: pathlib.Path) -> None:
  """Passages, their index, and questions that name passages by their ids."""
  passages = [row for n, name in enumerate(_NAMES) for row in _corpus(name, n)]
  _write(folder / "corpus.jsonl", passages)
  questions = [
    {
      "id": str(n),
      "question": f"When was the singer of {name} Song born?",
      "answer": str(1900 + n),
      "gold_pids": [f"s{n}", f"p{n}"],
    }
    for n, name in enumerate(_NAMES)
  ]
  _write(folder / "train.jsonl", questions[:12])
  _write(folder / "dev.jsonl", questions[12:])
  index = ("--corpus=corpus.jsonl", "--out=data/wiki_index")
  _launch(folder, "build_index", *index)
  for split in ("train", "dev"):
    last = _launch(
      folder,
      "prepare_data",
      "--dataset=musique",
      f"--name=made_{split}",
      f"--source={split}.jsonl",
      "--passages=corpus.jsonl",
      "--scorer=evidence",
      "--data_dir=data",
    )
    assert "0 rows quarantined" in last


def test_a_planner_is_taught_trained_and_put_beside_one_query(tmp_path):
  _prepare(tmp_path)
  flags = (
    f"--config={_ROOT}/configs/multihop_search.py",
    *(f"--config.{name}={value}" for name, value in _FLAGS.items()),
  )
  last = _launch(tmp_path, "train", *flags, "--config.run.run_dir=run")
  assert last.startswith("MULTIHOP_SEARCH held_out_before=")
  asked = "--benchmark=tfds:made_dev"
  _launch(
    tmp_path,
    "evaluate",
    *flags,
    asked,
    "--config.engines.planner=scripted:search",
    "--max_turns=1",
    "--out=one_query",
  )
  _launch(tmp_path, "evaluate", asked, "--checkpoint=run", "--out=trained")
  for out, turns in (("one_query", 1), ("trained", 2)):
    (result,) = json.loads(
      (tmp_path / out / "results.json").read_text()
    ).values()
    assert (result["questions"], result["missing"]) == (6, 0)
    assert result["mean_turns"] == turns
  # Song and singer share a name: one query finds both.
  one = json.loads((tmp_path / "one_query" / "results.json").read_text())
  assert one["tfds_made_dev"]["accuracy"] == 1.0
