"""What launch scripts say at once: --help, and that a flag is wrong.

Both without the libraries that take seconds to import.
"""

import ast
import inspect
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
# host_settings.py is imported by the others and has no main.
_SCRIPTS = sorted(
  file
  for file in (_ROOT / "launch").glob("*.py")
  if "run_app(" in file.read_text("utf-8")
)
_SLOW = {
  *("jax", "flax", "optax", "orbax", "transformers", "tokenizers"),
  *("tensorflow", "tensorflow_datasets", "torch"),
}
# What has to be given before a script comes to look at its config.
_NEEDED = {
  "demonstrate": ("--out=x",),
  "evaluate": ("--benchmark=x", "--out=x"),
  "experiment": ("--name=training",),
  "serve": ("--checkpoint=x",),
  "sft": ("--checkpoint=x", "--rollouts=x", "--out=x"),
  "solve": ("--checkpoint=x", "why?"),
}
_CONTINUED = " \\\n"


def _run(script, *arguments):
  """What it did, and which slow libraries it imported for that.

  Python reports every import on stderr, which is left out of the result.
  """
  done = subprocess.run(
    [sys.executable, "-X", "importtime", str(script), *arguments],
    cwd=_ROOT,
    env=os.environ | {"SERVE_TOKEN": "x"},
    capture_output=True,
    text=True,
    check=False,
  )
  said, imported = [], set()
  for line in done.stderr.splitlines(keepends=True):
    if line.startswith("import time:"):
      imported.add(line.rpartition("|")[2].strip().partition(".")[0])
    else:
      said.append(line)
  assert "absl" in imported
  return done.returncode, done.stdout, "".join(said), _SLOW & imported


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.stem)
def test_examples_keep_their_line_ends(script):
  """In a docstring that is not raw, Python joins such lines."""
  text = script.read_text("utf-8")
  source = ast.get_source_segment(text, ast.parse(text).body[0])
  shown = ast.get_docstring(ast.parse(text))
  assert source and shown
  assert shown.count(_CONTINUED) == source.count(_CONTINUED)


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.stem)
def test_help_shows_examples_and_flags(script):
  code, shown, said, slow = _run(script, "--help")
  assert (code, said, slow) == (0, "", set())
  about = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
  assert f"python launch/{script.name} " in about
  assert shown.startswith(inspect.cleandoc(about) + "\n\nFlags:\n  --")
  lines = shown.partition("\nFlags:\n")[2].splitlines()
  for line, following in zip(lines, [*lines[1:], ""], strict=True):
    if line.startswith("  --"):
      assert following.startswith("      "), f"{line} is not explained"
      # What absl says for a flag that says nothing.
      assert "no help available" not in following, f"{line} is not explained"


@pytest.mark.parametrize(
  "script",
  [s for s in _SCRIPTS if "define_config_flag(" in s.read_text("utf-8")],
  ids=lambda path: path.stem,
)
def test_a_wrong_config_is_refused_at_once(script):
  """By `config_validation.validate`, the last that looks at a config alone."""
  arguments = (*_NEEDED.get(script.stem, ()), "--config.sampler.slots=0")
  code, shown, said, slow = _run(script, *arguments)
  assert (code, shown, slow) == (2, "", set())
  assert said.startswith("error: ") and said.count("\n") == 1
  assert "sampler.slots=0 must be" in said


def test_the_scripts_are_found():
  assert {s.stem for s in _SCRIPTS} >= {"train", "solve", "sft", "report"}
  assert any(_CONTINUED in s.read_text("utf-8") for s in _SCRIPTS)
