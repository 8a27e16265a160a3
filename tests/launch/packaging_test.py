"""setup.py: what the package reads at run time is installed with it."""

import pathlib
import runpy

import pytest
import setuptools

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arguments():
  """What setup.py hands to setuptools."""
  given = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(_ROOT)
    patch.setattr(setuptools, "setup", lambda **named: given.update(named))
    runpy.run_path(str(_ROOT / "setup.py"))
  return given


def test_every_data_file_is_installed(arguments):
  package = _ROOT / "agentflow_jax"
  installed = {
    path
    for pattern in arguments["package_data"]["agentflow_jax"]
    for path in package.glob(pattern)
  }
  needed = {
    path
    for path in package.rglob("*")
    if path.is_file()
    and path.suffix != ".py"
    and "__pycache__" not in path.parts
  }
  assert len(needed) > 10
  assert needed == installed


def test_every_package_is_installed(arguments):
  folders = {
    ".".join(path.parent.relative_to(_ROOT).parts)
    for path in (_ROOT / "agentflow_jax").rglob("*.py")
  }
  assert folders == set(arguments["packages"])


def test_torch_comes_with_extras_for_developers_only(arguments):
  extras = arguments["extras_require"]
  with_torch = {name for name in extras if "torch" in str(extras[name])}
  assert with_torch == {"bench", "dev"}
  assert set(extras["test"]) < set(extras["dev"])
  assert not any("torch" in name for name in arguments["install_requires"])
