"""The user tool that docs/tools.md shows, done as it says: copied, named, used.

In a process of its own, as a user's is: nothing is registered before.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from agentflow_jax.tools import bm25_index, user_tools

_DOCS = pathlib.Path(__file__).parents[2] / "docs" / "tools.md"
# What a launch script does with its flags, and one call.
_SCRIPT = '''"""Counts words with the tool of the documents."""
import asyncio
import json

from agentflow_jax.core import config_validation
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import registry
from agentflow_jax.training import cli

_CONFIG = cli.define_config_flag()


async def use(toolbox):
  await toolbox.check()  # calls it with its example
  result = await toolbox["Word_Count_Tool"].execute(
    {"text": "one two  three"},
    engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR),
  )
  await toolbox.aclose()
  return result


def main(argv):
  config = _CONFIG.value
  config_validation.validate(config, training=False)
  toolbox = registry.build(
    config.tools,
    registry.Resources(
      engine=None, sampling=engine_lib.SamplingParams(), search_index_dir=""
    ),
  )
  result = asyncio.run(use(toolbox))
  spec = toolbox["Word_Count_Tool"].spec
  print(json.dumps({
    "tools": list(toolbox),
    "output": result.output,
    "described": spec.description,
    "limits": list(spec.limitations),
    "calls": toolbox.metrics()["tool/Word_Count_Tool/calls"],
  }))


if __name__ == "__main__":
  cli.run_app(main)
'''


@pytest.fixture(scope="module")
def section():
  """What the page says about tools of one's own."""
  text = _DOCS.read_text("utf-8")
  found = re.search(
    r"^## Your own tool in ten lines\n(.*?)^## ", text, re.DOTALL | re.MULTILINE
  )
  assert found
  return found[1]


@pytest.fixture(scope="module")
def snippet(section):
  """(module, source)."""
  (source,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.M)
  name = re.match(r"# (\w+)\.py, on the PYTHONPATH\n", source)
  assert name
  return name[1], source


@pytest.fixture
def use(tmp_path):
  """Runs the script with flags, where it finds what is in `tmp_path`."""
  (tmp_path / "script.py").write_text(_SCRIPT)
  passage = bm25_index.Passage(id="1", title="Laos", text="in Asia")
  bm25_index.build([passage], tmp_path / "index")

  def run(*flags):
    return subprocess.run(
      [
        *(sys.executable, "script.py", *flags),
        f"--config.tools.search_index_dir={tmp_path / 'index'}",
      ],
      cwd=tmp_path,
      env=os.environ | {"PYTHONPATH": str(tmp_path)},
      capture_output=True,
      text=True,
      check=False,
    )

  return run


def _check(done, tools):
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout) == {
    "tools": tools,
    "output": "3",
    "described": "Counts the words of a text.",
    "limits": ["English only."],
    "calls": 1,
  }


def test_the_snippet_and_its_flags(section, snippet, use, tmp_path):
  module, source = snippet
  (flags,) = re.findall(r"`(--config\.tools\.user_modules=[^`]*)`", section)
  (tmp_path / f"{module}.py").write_text(source)
  tools = ["Word_Count_Tool", "Wikipedia_Search_Tool"]
  _check(use(*flags.split()), tools)
  lines = [line for line in source.splitlines()[1:] if line]
  assert len(lines) <= 10, "ten lines, it says"


def test_an_installed_package_offers_it_by_name(
  section, snippet, use, tmp_path
):
  """A distribution with an entry point; its module has any name."""
  _, source = snippet
  assert f"entry point group `{user_tools.ENTRY_POINTS}`" in section
  (tmp_path / "words_by_acme.py").write_text(source)
  enabled = "--config.tools.enabled=word_count"
  unknown = use(enabled)
  assert unknown.returncode == 2
  assert "there is no tool 'word_count'" in unknown.stderr
  info = tmp_path / "words_by_acme-1.0.dist-info"
  info.mkdir()
  (info / "METADATA").write_text(
    "Metadata-Version: 2.1\nName: words-by-acme\nVersion: 1.0\n"
  )
  (info / "entry_points.txt").write_text(
    f"[{user_tools.ENTRY_POINTS}]\nword_count = words_by_acme:word_count\n"
  )
  _check(use(enabled), ["Word_Count_Tool"])
