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
from agentflow_jax.core import trajectory
from agentflow_jax.rollout import recorder
from agentflow_jax.training import cli
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
  with recorder.record_file(out / "rollouts.jsonl", step=1) as write:
    for t in groups[0].trajectories:
      write(t)
  logging.info("info %s", key)
  logging.warning("warning %s", key)
  try:
    raise ValueError(key)
  except ValueError:
    logging.exception("with a traceback")
  (out / "cmdline").write_bytes(pathlib.Path("/proc/self/cmdline").read_bytes())
  raise RuntimeError(f"a bug with {key}")

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
  assert {"rollouts.jsonl", "answers.sqlite", "cmdline"} <= names
  for path in files:
    assert CANARY.encode() not in path.read_bytes(), path


def test_what_was_hidden_says_so(died):
  _, out = died
  assert '"redacted": true' in (out / "rollouts.jsonl").read_text()
