"""--help of every launch script: examples to copy, and flags explained."""

import ast
import inspect
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
# The others import jax before they know that only help is wanted: seconds.
_QUICK = {
  *("build_index", "experiment", "prepare_data", "report"),
  "serve_retriever",
}
_ALWAYS = _QUICK | {"train"}
_CONTINUED = " \\\n"


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.stem)
def test_examples_keep_their_line_ends(script):
  """In a docstring that is not raw, Python joins such lines."""
  text = script.read_text("utf-8")
  source = ast.get_source_segment(text, ast.parse(text).body[0])
  shown = ast.get_docstring(ast.parse(text))
  assert source and shown
  assert shown.count(_CONTINUED) == source.count(_CONTINUED)


@pytest.mark.parametrize(
  "script",
  [
    pytest.param(
      script,
      id=script.stem,
      marks=[] if script.stem in _ALWAYS else [pytest.mark.slow],
    )
    for script in _SCRIPTS
  ],
)
def test_help_shows_examples_and_flags(script):
  done = subprocess.run(
    [sys.executable, str(script), "--help"],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stderr) == (0, "")
  about = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
  assert f"python launch/{script.name} " in about
  assert done.stdout.startswith(inspect.cleandoc(about) + "\n\nFlags:\n  --")
  lines = done.stdout.partition("\nFlags:\n")[2].splitlines()
  for line, following in zip(lines, [*lines[1:], ""], strict=True):
    if line.startswith("  --"):
      assert following.startswith("      "), f"{line} is not explained"
      # What absl says for a flag that says nothing.
      assert "no help available" not in following, f"{line} is not explained"


def test_the_scripts_are_found():
  assert {script.stem for script in _SCRIPTS} >= _ALWAYS | {"solve", "sft"}
  assert any(_CONTINUED in s.read_text("utf-8") for s in _SCRIPTS)
