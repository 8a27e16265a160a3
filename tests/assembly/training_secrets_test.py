"""A key that an API repeats in every answer reaches nothing a run keeps."""

import os
import pathlib
import subprocess
import sys

import local_server
import pytest
import short_runs
import told_children

from agentflow_jax.rollout import recorder

pytestmark = pytest.mark.slow

CANARY = "sk-canary-77b1c0ffee42"
_ROOT = pathlib.Path(__file__).parents[2]


def _tell(handler):
  """A chat completion that repeats the key it was sent."""
  key = handler.headers["authorization"].removeprefix("Bearer ")
  message = {"role": "assistant", "content": f"Vientiane, by {key}."}
  handler.send_json(
    {
      "id": "c1",
      "object": "chat.completion",
      "created": 1,
      "model": "m",
      "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
      "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 9,
        "total_tokens": 18,
      },
    }
  )


def test_a_whole_training_run_keeps_the_key_to_itself(tmp_path):
  """One whose answers have the key in them, with all that a run can write."""
  run = tmp_path / "run"
  with (
    local_server.serving(_tell) as api,
    told_children.Children(pause_s=0.1) as children,
  ):
    flags = short_runs.FLAGS | {
      "run.run_dir": run,
      "run.compile_cache_dir": tmp_path / "compiled",
      "tasks.data_dir": tmp_path / "data",
      "engines.generator": "compatible:telling",
      "engines.generator_options.base_url": f"{api.url}/v1",
      "engines.cache_dir": tmp_path / "cache",
      "rollout.record_every": 1,
      "rollout.replay": "record",
      "rollout.replay_dir": tmp_path / "replay",
      "training.iterations": 2,
      "training.tensorboard": "true",
      "training.export_hf": "true",
      "training.write_report": "true",
    }
    process = subprocess.Popen(
      [sys.executable, "launch/train.py", "--config=configs/quickstart.py"]
      + [f"--config.{name}={value}" for name, value in flags.items()],
      cwd=_ROOT,
      env=os.environ
      | {
        "AGENTFLOW_HOST_SETTINGS": "0",
        "COMPATIBLE_API_KEY": CANARY,
        "XLA_FLAGS": "",  # one device
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    out, err = process.communicate(timeout=500)
  assert process.returncode == 0, err[-3000:]
  # It was there to be kept, in engine calls and so in every sink.
  sent = {
    value
    for headers in api.seen
    for name, value in headers.items()
    if name.lower() == "authorization"
  }
  assert sent == {f"Bearer {CANARY}"}
  record = recorder.iteration_path(run, 1)
  assert "Vientiane, by [redacted]." in record.read_text()
  for name in [
    *("report.html", "config.json", "metrics.jsonl", "evaluations.jsonl"),
    *("hf", "rollouts", "checkpoints", "tensorboard", "../replay", "../cache"),
  ]:
    assert (run / name).exists(), name
  assert CANARY not in out + err
  for path in tmp_path.rglob("*"):
    assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path
  assert b"launch/train.py" in children.arguments[process.pid]
  for pid, arguments in children.arguments.items():
    assert CANARY.encode() not in arguments, arguments
    # Nor do the processes below it have it in their environment.
    if pid != process.pid:
      assert CANARY.encode() not in children.told[pid], arguments
