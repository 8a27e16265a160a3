"""The shell scripts, in a repository whose .venv is a stub: nothing installs.

The stub records how Python is called and answers as the environment says.
"""

import pathlib
import shutil
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_SCRIPTS = sorted((_ROOT / "launch").glob("*.sh")) + [_ROOT / ".ci" / "run"]
_STUB = f"""#!/bin/bash
if [[ "$1" == - ]]; then exec "{sys.executable}" "$@"; fi
echo "python $*" >> calls
if [[ "$*" == *"pip install"* ]]; then
  echo "chatter of pip"
  exit "${{PIP_STATUS:-0}}"
fi
"""
_TOOL = """#!/bin/bash
echo "$(basename "$0") $*" >> calls
if [[ "${FAILING:-}" == "$(basename "$0")" ]]; then exit 1; fi
"""
_ENSURE = "python -m ensurepip"


@pytest.fixture
def repo(tmp_path) -> pathlib.Path:
  shutil.copytree(_ROOT / "launch", tmp_path / "launch")
  shutil.copytree(_ROOT / ".ci", tmp_path / ".ci")
  (tmp_path / "setup.py").write_text("# one")
  bin_dir = tmp_path / ".venv" / "bin"
  bin_dir.mkdir(parents=True)
  for name, text in (("python", _STUB), ("ruff", _TOOL), ("pyright", _TOOL)):
    (bin_dir / name).write_text(text)
    (bin_dir / name).chmod(0o755)
  return tmp_path


def _run(repo, script, *arguments, **environment):
  """From another directory, as a user may."""
  return subprocess.run(
    ["bash", str(repo / script), *arguments],
    cwd="/",
    env={"PATH": "/usr/bin:/bin", **environment},
    capture_output=True,
    text=True,
    check=False,
  )


def _calls(repo) -> list[str]:
  """What was called since the last time."""
  path = repo / "calls"
  lines = path.read_text().splitlines() if path.exists() else []
  path.unlink(missing_ok=True)
  return lines


def _install(extras: str) -> str:
  compiles = "--no-compile " if extras else ""
  return (
    f"python -m pip install --disable-pip-version-check {compiles}-e .{extras}"
  )


def _train(seed: int, *more: str) -> str:
  return " ".join(
    (
      "python launch/train.py --config=configs/quickstart.py",
      f"--config.run.seed={seed}",
      f"--config.run.run_dir=runs/quickstart-seed{seed}",
      *more,
    )
  )


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_them(script):
  subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
def test_help_names_every_flag_and_does_nothing(repo, script):
  done = _run(repo, f"launch/{script}", "--help")
  assert done.returncode == 0
  flag = {"quickstart.sh": "--seed=0", "test.sh": "--torch"}[script]
  assert f"bash launch/{script}" in done.stdout
  assert flag in done.stdout
  assert not _calls(repo)


def test_quickstart_installs_once_and_trains(repo):
  done = _run(repo, "launch/quickstart.sh")
  assert done.returncode == 0, done.stderr
  assert _calls(repo) == [_ENSURE, _install(""), _train(0)]
  assert done.stdout == ""  # the last line of stdout is the training's
  assert "chatter of pip" in (repo / ".venv" / "install.log").read_text()
  _run(repo, "launch/quickstart.sh")
  assert _calls(repo) == [_train(0)]
  (repo / "setup.py").write_text("# two")
  _run(repo, "launch/quickstart.sh")
  assert _calls(repo) == [_ENSURE, _install(""), _train(0)]


@pytest.mark.parametrize("seed", [["--seed=7"], ["--seed", "7"]])
def test_quickstart_passes_overrides_on(repo, seed):
  overrides = (
    "--config.learner.lr=3e-4",
    "--config.training.iterations",
    "1",
    "--noconfig.training.tensorboard",
    "--config.training.keep_best",
  )
  done = _run(repo, "launch/quickstart.sh", *seed, *overrides)
  assert done.returncode == 0, done.stderr
  assert _calls(repo)[-1] == _train(7, *overrides)


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--sed=1", "error: unknown argument '--sed=1'; see --help\n"),
    ("stray", "error: unknown argument 'stray'; see --help\n"),
    ("--seed=x", "error: --seed must be a whole number, got 'x'\n"),
    ("--seed", "error: --seed must be a whole number, got ''\n"),
  ],
)
def test_quickstart_refuses_what_it_does_not_know(repo, argument, message):
  done = _run(repo, "launch/quickstart.sh", argument)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr == message
  assert not _calls(repo)


def test_a_failed_installation_shows_where_its_log_is(repo):
  done = _run(repo, "launch/quickstart.sh", PIP_STATUS="1")
  assert done.returncode == 1
  assert done.stdout == ""
  assert "chatter of pip" in done.stderr
  assert done.stderr.endswith(
    "error: the installation failed; all of it is in .venv/install.log\n"
  )
  assert _calls(repo) == [_ENSURE, _install("")]  # no training
  _run(repo, "launch/quickstart.sh")
  assert _install("") in _calls(repo)  # and it is tried again


def test_without_a_python_it_says_what_to_install(repo, tmp_path):
  shutil.rmtree(repo / ".venv")
  bin_dir = tmp_path / "bin"
  bin_dir.mkdir()
  for name in ("bash", "dirname", "cat"):
    (bin_dir / name).symlink_to(shutil.which(name))
  (bin_dir / "python3").write_text("#!/bin/bash\nexit 1\n")  # too old
  (bin_dir / "python3").chmod(0o755)
  done = _run(repo, "launch/quickstart.sh", PATH=str(bin_dir))
  assert done.returncode == 1
  assert done.stderr.startswith("error: no Python >= 3.11 with the venv module")
  assert "apt-get install python3 python3-venv" in done.stderr
  done = _run(repo, "launch/quickstart.sh", PYTHON="/nonexistent/python3")
  assert done.returncode == 1
  assert done.stderr == (
    "error: PYTHON=/nonexistent/python3 is no Python >= 3.11 with venv\n"
  )
  assert not (repo / ".venv").exists()


def test_all_checks_run_and_arguments_go_to_pytest(repo):
  done = _run(repo, "launch/test.sh", "tests/agent", "-m", "not slow")
  assert done.returncode == 0, done.stderr
  assert _calls(repo) == [
    _ENSURE,
    _install("[test]"),
    "ruff check",
    "ruff format --check",
    "pyright ",
    "python -m pytest -n 2 -rs -m not gpu tests/agent -m not slow",
  ]


@pytest.mark.parametrize("page", ["<html></html>", ""])
def test_ci_has_torch_and_a_browser_that_starts(repo, page):
  for name in ("chromium", "chromedriver"):  # so that none is installed
    path = repo / "tools" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\necho '{page}'\n")
    path.chmod(0o755)
  done = _run(repo, ".ci/run", PATH=f"{repo}/tools:/usr/bin:/bin")
  assert done.returncode == 0, done.stderr
  calls = _calls(repo)
  assert calls[1] == _install("[dev]")
  tests = "python -m pytest -n 2 -rs -m not gpu -m not gpu and not slow"
  viewer = "python -m pytest -n 0 -rs tests/evaluation/viewer_browser_test.py"
  if page:
    assert calls[-2:] == [tests, viewer]
    assert f"screenshots: {repo}/runs/ci" in done.stdout
  else:
    assert calls[-1] == tests
    assert "the viewer has not been looked at" in done.stdout
  assert (_ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("tool", ["ruff", "pyright"])
def test_a_failed_check_fails_the_script(repo, tool):
  done = _run(repo, "launch/test.sh", FAILING=tool)
  assert done.returncode == 1
  assert not any("pytest" in call for call in _calls(repo))
