"""A canary key in environment, prompts and tool output reaches no sink.

The script below is what a launch script does: parse, install, log, run
episodes, record, report, and then die of a bug that has the key in it.
"""

import asyncio
import os
import pathlib
import subprocess
import sys
import typing

import numpy as np
import pytest
import told_children

from agentflow_jax.tools import bubblewrap_sandbox, mcp_tools, monty_sandbox
from agentflow_jax.training import checkpointing, run_parts

CANARY = "sk-canary-77b1c0ffee42"
_SCRIPT = """
import asyncio, dataclasses, pathlib, sys
from absl import logging
import assembled_world
import numpy as np
from agentflow_jax.evaluation import scores
from agentflow_jax.evaluation.report import report, runs_report
from agentflow_jax.rollout import recorder
from agentflow_jax.training import checkpointing, cli, metrics_writer, run_dir
from agentflow_jax.training import run_parts
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
      position = dataclasses.asdict(run_parts.Position(iteration=1))
      saved.save(1, {"params": {"w": np.ones(4, np.float32)}},
                 {**position, "seconds": 1.0}, metrics={"reward": 1.0},
                 wait=True)
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
  for path in files:
    assert CANARY.encode() not in path.read_bytes(), path


def test_what_was_hidden_says_so(died):
  _, out = died
  (record,) = out.rglob("iteration_000001.jsonl")
  assert '"redacted": true' in record.read_text()
  for page in ("report.html", "viewer.html"):
    assert "[redacted]" in (out / "run" / page).read_text(), page


def _files_with_the_key(directory):
  return [
    path
    for path in directory.rglob("*")
    if path.is_file() and CANARY.encode() in path.read_bytes()
  ]


def _open(directory):
  return checkpointing.Checkpointer(directory, keep_last=1, keep_best=False)


def test_a_checkpoint_holds_numbers_only(died, tmp_path):
  """Beside its arrays, which are compressed and hide a text from a scan."""
  _, out = died
  directory = out / "run" / "checkpoints"
  with _open(directory) as saved:
    extra = saved.read(1)["extra"]
    state, _ = saved.restore({"params": {"w": np.ones(4, np.float32)}})
  assert state["params"]["w"].dtype == np.float32
  # What the loop saves of itself, and every key of it.
  hints = typing.get_type_hints(run_parts.Position)
  assert set(hints.values()) == {int}
  assert set(extra) == {*hints, "seconds"}
  assert all(isinstance(value, int | float) for value in extra.values())
  assert not _files_with_the_key(directory)
  # The scan does see what stands in a checkpoint.
  with _open(tmp_path) as saved:
    arrays = {"params": {"w": np.ones(4, np.float32)}}
    saved.save(1, arrays, {"position": CANARY}, wait=True)
  assert _files_with_the_key(tmp_path)


async def _sleep_in(sandbox):
  try:
    run = await sandbox.run("import time\ntime.sleep(0.3)\nprint(1)")
  finally:
    await sandbox.aclose()
  assert run.output == "1"


def _serve_mcp(directory):
  pytest.importorskip("mcp")
  path = directory / "server.py"
  path.write_text(
    "from mcp.server.mcpserver import MCPServer\n"
    "server = MCPServer('clock')\n"
    "@server.tool()\n"
    "def now() -> str:\n"
    "  'Tells the time.'\n"
    "  return 'noon'\n"
    "server.run()\n"
  )
  (tool,) = mcp_tools.connect(f"clock={sys.executable} {path}")
  asyncio.run(tool.aclose())


@pytest.mark.parametrize(
  ("kind", "sign"),
  [
    ("monty", b"monty"),
    ("bubblewrap", b"/guest.py"),
    pytest.param("mcp", b"server.py", marks=pytest.mark.slow),
  ],
)
def test_no_child_of_a_tool_is_told_the_key(kind, sign, tmp_path, monkeypatch):
  monkeypatch.setenv("COMPATIBLE_API_KEY", CANARY)
  with told_children.Children() as children:
    if kind == "mcp":
      _serve_mcp(tmp_path)
    elif kind == "monty":
      asyncio.run(_sleep_in(monty_sandbox.MontySandbox()))
    else:
      asyncio.run(_sleep_in(bubblewrap_sandbox.BubblewrapSandbox()))
  told = list(children.told.values())
  assert any(sign in one for one in told), told
  assert not [one for one in told if CANARY.encode() in one]


def test_a_child_that_is_told_the_key_is_seen(monkeypatch):
  monkeypatch.setenv("COMPATIBLE_API_KEY", CANARY)
  for arguments, environment in (([CANARY], {}), ([], {"KEY": CANARY})):
    script = "import time; time.sleep(0.3)"
    with told_children.Children() as children:
      subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -S -c '{script}' $0", *arguments],
        env=environment,
      )
    assert any(CANARY.encode() in one for one in children.told.values())
