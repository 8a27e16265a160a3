"""A canary key in environment, prompts and tool output reaches no sink.

The script below is what a launch script does: parse, install, log, run
episodes, record, report, and then die of a bug that has the key in it.
"""

import os
import pathlib
import subprocess
import sys

import pytest

CANARY = "sk-canary-77b1c0ffee42"
_SCRIPT = """
import asyncio, pathlib, sys
from absl import logging
import assembled_world
import numpy as np
from agentflow_jax.evaluation import scores
from agentflow_jax.evaluation.report import report, runs_report
from agentflow_jax.rollout import recorder
from agentflow_jax.training import checkpointing, cli, metrics_writer, run_dir
import os

def main(argv):
  key = os.environ["COMPATIBLE_API_KEY"]
  out = pathlib.Path(os.environ["OUT"])
  config = assembled_world.config(
    rollout__replay="record", rollout__replay_dir=str(out / "replay"),
    engines__cache_dir=str(out / "cache"),
    engines__generator="compatible:echo",
    engines__generator_options__base_url="http://127.0.0.1:9/v1",
    engines__retries=0, rollout__tasks=1)
  models = {"trainable": assembled_world.oracle()}

  async def run():
    opened = assembled_world.open_agents(config, os.environ["DATA"], models)
    async with opened as (world, engines, toolbox, agents):
      for tool in toolbox.values():
        inner = tool._tool.execute
        async def leaky(arguments, context, inner=inner):
          import dataclasses
          result = await inner(arguments, context)
          return dataclasses.replace(result, output=result.output + key)
        tool._tool.execute = leaky
      return await assembled_world.rollout(config, world, agents)

  groups = asyncio.run(run())
  text = repr(groups)
  assert key in text  # it was there to be leaked
  save(config, out / "run", groups[0].trajectories)
  logging.info("info %s", key)
  logging.warning("warning %s", key)
  try:
    raise ValueError(key)
  except ValueError:
    logging.exception("with a traceback")
  (out / "cmdline").write_bytes(pathlib.Path("/proc/self/cmdline").read_bytes())
  raise RuntimeError(f"a bug with {key}")

def save(config, path, trajectories):
  "Everything that a training run keeps."
  with run_dir.RunDir.open(path, config) as run:
    recorder.record_all(recorder.iteration_path(path, 1), 1, trajectories)
    for when in ("before", "after"):
      recorder.record_all(run.evaluation_rollouts(when), 1, trajectories)
    with metrics_writer.MetricsWriter(path) as metrics:
      metrics.write(iteration=1, step=1, metrics={"reward": 1.0})
      for when in ("before", "after"):
        metrics.write_evaluation(
          iteration=when == "after", when=when,
          summary=scores.summarise(trajectories[:1]))
    with checkpointing.Checkpointer(
        run.checkpoints, keep_last=1, keep_best=True) as saved:
      saved.save(1, {"params": {"w": np.ones(4, np.float32)}}, {}, wait=True)
    report.write_report(path)
    runs_report.write_runs([path], path / "viewer.html", max_trajectories=100)

cli.run_app(main)
"""


@pytest.fixture(scope="module")
def died(tmp_path_factory):
  out = tmp_path_factory.mktemp("out")
  here = pathlib.Path(__file__).parent
  environment = os.environ | {
    "COMPATIBLE_API_KEY": CANARY,
    "OUT": str(out),
    "DATA": str(tmp_path_factory.mktemp("data")),
    "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
  }
  process = subprocess.run(
    [sys.executable, "-c", _SCRIPT],
    env=environment,
    capture_output=True,
    text=True,
    timeout=500,
  )
  return process, out


def test_the_key_is_in_no_output_and_no_file(died):
  process, out = died
  assert process.returncode == 1
  assert "RuntimeError: a bug with [redacted]" in process.stderr
  assert "warning [redacted]" in process.stderr
  assert "ValueError: [redacted]" in process.stderr
  assert CANARY not in process.stdout + process.stderr
  files = [path for path in out.rglob("*") if path.is_file()]
  names = {path.name for path in files}
  assert {
    *("iteration_000001.jsonl", "after.jsonl", "config.json", "metrics.jsonl"),
    *("report.html", "viewer.html", "answers.sqlite", "cmdline"),
  } <= names
  assert list(out.glob("run/checkpoints/*/*"))
  for path in files:
    assert CANARY.encode() not in path.read_bytes(), path


def test_what_was_hidden_says_so(died):
  _, out = died
  (record,) = out.rglob("iteration_000001.jsonl")
  assert '"redacted": true' in record.read_text()
  for page in ("report.html", "viewer.html"):
    assert "[redacted]" in (out / "run" / page).read_text(), page
