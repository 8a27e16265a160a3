"""Launch scripts: flags in, one line out when the user made a mistake."""

import pathlib
import re
import subprocess
import sys

import pytest

from agentflow_jax.core import config_validation

_SCRIPT = '''"""Does a thing.

Example: python script.py --out=x
"""
from absl import flags, logging
from agentflow_jax.core import errors
from agentflow_jax.training import cli

_OUT = flags.DEFINE_string("out", "", "Where the result goes.")
_COUNT = flags.DEFINE_integer("count", 3, "How many.")
_CONFIG = cli.define_config_flag(DEFAULT)


def main(argv):
  logging.info("ours")
  logging.get_absl_logger().handle(logging.get_absl_logger().makeRecord(
      "absl", 20, "/site-packages/orbax/noise.py", 1, "noise", (), None))
  config = _CONFIG.value
  if _OUT.value == "user":
    raise errors.UserError("no such place:\\n  user")
  if _OUT.value == "bug":
    raise KeyError("bug")
  if _OUT.value == "interrupt":
    raise KeyboardInterrupt
  print(cli.config_name(), config.learner.lr, config.tools.enabled,
        config.training.tensorboard, config.run.run_dir, _COUNT.value,
        config.learner.clip_low, config.learner.clip_high)


if __name__ == "__main__":
  cli.run_app(main)
'''
_CONFIG = """
import dataclasses
from agentflow_jax.core import config as config_lib

def get_config():
  config = config_lib.Config()
  config.learner.lr = 0.5
  config.run.run_dir = "from file"
  return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("cli")
  (folder / "script.py").write_text(_SCRIPT.replace("DEFAULT", "None"))
  (folder / "other.py").write_text(_SCRIPT.replace("DEFAULT", '"mine.py"'))
  (folder / "mine.py").write_text(_CONFIG)
  (folder / "dict.py").write_text("def get_config():\n  return {}\n")
  (folder / "bad.py").write_text("def get_config():\n  return int('x')\n")
  (folder / "flags.txt").write_text("--config.learner.lr=0.25\n--count=8\n")
  return folder


def _run(folder, *arguments, script="script.py"):
  return subprocess.run(
    [sys.executable, script, *arguments],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize(
  ("arguments", "printed"),
  [
    (
      (),
      "default 1e-06 ('base_generator', 'python_coder', 'wikipedia_search')",
    ),
    (
      (
        "--config.learner.lr=3e-4",
        "--config.tools.enabled=python_coder,wikipedia_search",
        "--noconfig.training.tensorboard",
        "--count=5",
      ),
      "default 0.0003 ('python_coder', 'wikipedia_search') False  5",
    ),
    (
      ("--config.learner.lr=3e-4", "--config", "mine.py"),
      "mine 0.0003",
    ),
    (("--flagfile=flags.txt",), "default 0.25"),
    (
      ("--config.learner.clip_low=0.1", "--config.learner.preset=dapo"),
      " 3 0.1 0.28",
    ),
  ],
)
def test_flags_reach_main(folder, arguments, printed):
  result = _run(folder, *arguments)
  assert result.returncode == 0, result.stderr
  assert printed in result.stdout
  assert "ours" in result.stderr
  assert "noise" not in result.stderr  # libraries' INFO lines


def test_a_config_with_a_secret_in_it_is_refused(folder, monkeypatch):
  # It would be saved with the run, and shown in its report.
  monkeypatch.setenv("SOME_API_KEY", "sk-canary-99fe1c")
  result = _run(
    folder,
    "--config.engines.judge_options.base_url=http://sk-canary-99fe1c@host/v1",
  )
  assert result.returncode == 2
  assert result.stdout == ""
  assert "canary" not in result.stderr
  assert result.stderr == (
    "error: engines.judge_options.base_url='http://[redacted]@host/v1' holds a "
    "secret of the environment, and a config is saved with its run; keys are "
    "read from the environment: leave it out\n"
  )


def test_a_script_may_have_its_own_default_config(folder):
  result = _run(folder, "--config.learner.epochs=2", script="other.py")
  assert result.stdout.startswith("mine 0.5")
  assert "from file" in result.stdout


@pytest.mark.parametrize(
  ("argument", "line"),
  [
    (
      "--config.learner.lrr=3",
      "error: unknown config key 'learner.lrr'; nearest: 'learner.lr'",
    ),
    (
      "--config.learner.lr=abc",
      "error: config key 'learner.lr' must be a number, got 'abc'",
    ),
    ("--cuont=3", "error: unknown flag '--cuont'; nearest: '--count'"),
    (
      "--count=x",
      "error: flag --count=x: invalid literal for int() with base 10: 'x'",
    ),
    ("stray", "error: unexpected argument 'stray'"),
    ("--config=none.py", "error: config file 'none.py' does not exist"),
    (
      "--config=dict.py",
      "error: get_config() of 'dict' must return a Config, got dict",
    ),
    ("--out=user", "error: no such place: user"),
  ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, argument, line):
  result = _run(folder, argument)
  assert result.returncode == 2
  assert [
    text for text in result.stderr.splitlines() if "ours" not in text
  ] == [line]
  assert result.stdout == ""


def test_an_exception_in_a_config_file_is_one_line(folder):
  result = _run(folder, "--config=bad.py")
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert "--config=bad.py" in line
  assert "invalid literal" in line


def test_a_bug_keeps_its_traceback(folder):
  result = _run(folder, "--out=bug")
  assert result.returncode == 1
  assert "KeyError: 'bug'" in result.stderr


def test_an_interrupt_exits_130_quietly(folder):
  result = _run(folder, "--out=interrupt")
  assert result.returncode == 130
  assert "Traceback" not in result.stderr


def test_help_is_complete_and_has_no_noise(folder):
  result = _run(folder, "--help")
  assert result.returncode == 0
  text = result.stdout
  assert text.startswith("Does a thing.")
  assert "--count=3\n      How many." in text
  assert "--verbosity" not in text
  assert "--logtostderr" not in text
  for key in config_validation.field_types():
    group, _, name = key.rpartition(".")
    # The options of all roles have the same names; one role's are explained.
    if group.endswith("_options") and group != "engines.planner_options":
      assert f"{group}.KEY=VALUE\n      As engines.planner_options.KEY." in text
      key = f"engines.planner_options.{name}"
    assert f"\n  --config.{key}=" in text
  # The comments above and beside a key explain it.
  assert "Trajectories per optimizer step; 0 = all of the iteration." in text
  assert "k1 | k2 | k3" in text
  assert result.stderr == ""


def test_help_explains_every_flag_and_key(folder):
  lines = _run(folder, "--help").stdout.splitlines()
  found = {}
  for line in lines[lines.index("Flags:") + 1 :]:
    if line.startswith("  --"):
      name = line[4:].partition("=")[0]
      found[name] = ""
    elif line.startswith("      "):
      found[name] += line.strip() + " "
  assert len(found) > 100 and {"count", "config.learner.lr"} <= set(found)
  assert [name for name, text in found.items() if not text] == []
  # What may be chosen does not say what is chosen.
  for key, choices in config_validation.CHOICES.items():
    text = found.get(f"config.{key}", "")
    assert re.sub(r"[\s|]", "", text) != "".join(choices), key


def test_the_module_imports_without_jax():
  code = (
    "import sys\n"
    "from agentflow_jax.training import cli, metrics_writer\n"
    "from agentflow_jax.training import progress, run_dir\n"
    "assert 'jax' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
