"""The doctor: one line per part, keys never shown, failures counted."""

import asyncio
import os
import pathlib
import subprocess
import sys

from agentflow_jax.assembly import doctor
from agentflow_jax.core import config as config_lib
from agentflow_jax.tools import user_tools

_ROOT = pathlib.Path(__file__).parents[2]


def _findings(config):
  async def all_of_them():
    return [finding async for finding in doctor.examine(config)]

  return {f.what: f for f in asyncio.run(all_of_them())}


def test_everything_of_a_config_is_tried():
  config = config_lib.Config()
  config.tools.enabled = ("python_coder", "wikipedia_search")
  config.engines.executor = config.engines.tool = "scripted:worldfacts"
  found = _findings(config)
  assert all(finding.ok for finding in found.values()), found
  assert "rules" in found["engine scripted:worldfacts"].detail
  assert {"python", "jax", "memory", "tool python_coder"} <= found.keys()
  assert "ms" in found["tool wikipedia_search"].detail
  assert all("\n" not in str(finding) for finding in found.values())


def test_failures_are_findings_and_hide_nothing(monkeypatch):
  monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
  config = config_lib.Config()
  config.tools.enabled = ("google_search", "no_such_tool", "python_coder")
  found = _findings(config)
  assert not found["tool google_search"].ok
  assert not found["tool no_such_tool"].ok
  assert found["tool python_coder"].ok
  assert "stand-in" in found["tool python_coder"].detail
  assert not found["key GOOGLE_API_KEY"].ok


def test_a_tool_of_the_users_is_called_if_it_has_an_example(monkeypatch):
  monkeypatch.setattr(user_tools, "_decorated", {})

  @user_tools.tool(example={"text": "a b"})
  def counted(text: str) -> int:
    """Counts words."""
    return len(text.split())

  @user_tools.tool
  def silent(text: str) -> int:
    """Counts words."""
    return len(text.split())

  @user_tools.tool(example={"text": 3})
  def wrong(text: str) -> int:
    """Counts words."""
    return len(text.split())

  config = config_lib.Config()
  config.tools.enabled = ("counted", "silent", "wrong")
  found = _findings(config)
  assert "answered in" in found["tool counted"].detail
  assert found["tool silent"].ok
  assert "not called" in found["tool silent"].detail
  assert not found["tool wrong"].ok


def test_keys_are_present_or_missing_and_never_shown(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "canary-3c8a9f77")
  config = config_lib.Config()
  config.tools.enabled = ("google_search",)
  config.tools.google_backend = "gemini"
  config.tools.google_url = "http://127.0.0.1:9"
  found = _findings(config)
  assert found["key GOOGLE_API_KEY"].detail == "present"
  assert not found["tool google_search"].ok
  assert all("canary" not in str(finding) for finding in found.values())


def test_the_script_fails_if_anything_does():
  done = subprocess.run(
    [sys.executable, "launch/doctor.py", "--config.tools.enabled=no_such_tool"],
    cwd=_ROOT,
    env={**os.environ, "GOOGLE_API_KEY": "canary-3c8a9f77"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1, done.stderr
  lines = done.stdout.splitlines()
  assert [line[:4] for line in lines[:-1]].count("FAIL") == 1
  assert lines[-1] == "1 failed"
  assert all(line[:4] in ("ok  ", "FAIL") for line in lines[:-1])
  assert "canary" not in done.stdout + done.stderr
