"""setup.py: what the package reads at run time is installed with it."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import runpy
import sys

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


def test_every_imported_library_is_required_by_name(arguments):
  """Not left to come along with another, like jinja2 with torch."""
  required = {
    _name(requirement)
    for requirements in (
      arguments["install_requires"],
      *arguments["extras_require"].values(),
    )
    for requirement in requirements
  }
  # Installed where the tests run or not, these are extras.
  outside = {"tunix", "wandb", "torch"}
  for module, path in sorted(_imported()):
    if module not in outside:
      names = _distributions(module)
      assert names & required, f"{path}: {module} is not in setup.py"


def test_every_required_library_is_imported(arguments):
  imported = {
    name for module, _ in _imported() for name in _distributions(module)
  }
  required = {_name(line) for line in arguments["install_requires"]}
  # transformers reads tokenizer.model files with it.
  assert required - imported == {"sentencepiece"}


def _name(requirement: str) -> str:
  return re.split(r"[^\w-]", requirement)[0].lower().replace("_", "-")


def _distributions(module: str) -> set[str]:
  """Names of what installs `module`, as setup.py writes them."""
  if module == "pydantic_monty":  # the module lies in its client
    return {"pydantic-monty"}
  names = _all_distributions().get(module, ())
  return {name.lower().replace("_", "-") for name in names}


@functools.cache
def _all_distributions():
  return importlib.metadata.packages_distributions()


def _imported():
  """Yields (top-level module, path) of imports from outside."""
  for path in (_ROOT / "agentflow_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        modules = [node.module or ""]
      else:
        continue
      for module in modules:
        top = module.split(".")[0]
        if top != "agentflow_jax" and top not in sys.stdlib_module_names:
          yield top, path.name
