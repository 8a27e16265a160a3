"""launch/serve.py as a user runs it, with launch/solve.py as its client."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.request

import api_process
import plan_model
import pytest

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import record_codec

pytestmark = pytest.mark.slow

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
_TOKEN = "serve-canary-1f7a"
_CONFIG = """
from agentflow_jax.core import config as config_lib

def get_config():
  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.memory_tokens = 128
  config.agent.max_episode_tokens = 2048
  config.tools.enabled = ("wikipedia_search",)
  config.engines.frozen_max_tokens = 8
  config.sampler.max_prompt_tokens = 448
  config.sampler.max_completion_tokens = 8
  config.sampler.prefill_chunk_tokens = 64
  config.sampler.slots = 2
  return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  pytest.importorskip("httptools")
  folder = tmp_path_factory.mktemp("serve")
  plan_model.write(folder)
  (folder / "mine.py").write_text(_CONFIG)
  return folder


def _command(folder, script, *arguments, **environment):
  return {
    "args": [sys.executable, str(_LAUNCH / script), *arguments],
    "cwd": folder,
    "env": {**os.environ, "XDG_CACHE_HOME": str(folder / "c"), **environment},
    "text": True,
  }


@contextlib.contextmanager
def _serving(folder):
  """The address it prints; ends with SIGTERM, and with 0."""
  command = _command(
    folder,
    "serve.py",
    *("--checkpoint=model", "--config=mine.py", "--name=planner", "--port=0"),
    SERVE_TOKEN=_TOKEN,
  )
  with subprocess.Popen(**command, stdout=subprocess.PIPE) as process:
    assert process.stdout is not None
    try:
      line = process.stdout.readline()
      assert line.startswith("serving planner on 127.0.0.1:")
      yield f"http://{line.split()[-1]}"
    finally:
      process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_solve_asks_it_and_an_api(folder):
  others = ("executor", "verifier", "generator", "tool")
  with api_process.serve() as api, _serving(folder) as address:
    done = subprocess.run(
      **_command(
        folder,
        "solve.py",
        *("--checkpoint=model", "--config=mine.py", "--json"),
        "--config.engines.planner=vllm:planner",
        f"--config.engines.planner_options.base_url={address}/v1",
        "--config.engines.planner_options.structured=false",
        *(f"--config.engines.{role}=compatible:echo" for role in others),
        *(
          f"--config.engines.{role}_options.base_url={api.base_url}"
          for role in others
        ),
        "What is the capital of Laos?",
        VLLM_API_KEY=_TOKEN,
        COMPATIBLE_API_KEY=api_process.KEY,
      ),
      capture_output=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    with urllib.request.urlopen(f"{address}/health", timeout=60) as response:
      assert json.load(response)["answered"] == 1
    assert api.stats()["requests"]["echo"] >= 3
  (line,) = done.stdout.splitlines()
  found = record_codec.decode(
    trajectory_lib.Trajectory, json.loads(line), "stdout"
  )
  assert found.stop_reason == trajectory_lib.StopReason.VERIFIED
  assert found.turns[0].module_calls[0].completion.text == plan_model.PLAN
  assert found.turns[0].results[0].output.startswith("Laos: ")


@pytest.mark.parametrize(
  ("arguments", "token", "needle"),
  [
    ((), _TOKEN, "--checkpoint"),
    (("--checkpoint=model",), "", "set SERVE_TOKEN"),
    (
      ("--checkpoint=model", "--no_token", "--host=0.0.0.0"),
      "",
      "open the model to everybody",
    ),
    (("--checkpoint=none", "--port=0"), _TOKEN, "is no model"),
  ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, arguments, token, needle):
  done = subprocess.run(
    **_command(folder, "serve.py", *arguments, SERVE_TOKEN=token),
    capture_output=True,
    check=False,
  )
  assert (done.returncode, done.stdout) == (2, "")
  *_, line = done.stderr.splitlines()
  assert line.startswith("error: ") and needle in line
