"""The architecture, checked: layers, sizes, what must not be called.

The checks themselves (architecture_checks.py) are proven to fail on small bad
sources below, so an empty result means something.
"""

import pathlib
import subprocess
import sys
import textwrap

import architecture_checks as checks
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = checks.read_sources(ROOT, (checks.PACKAGE, "launch", "configs"))


def _product():
  return [s for s in SOURCES if s.path.startswith(checks.PACKAGE)]


def _all_of(check, sources=SOURCES):
  return [problem for source in sources for problem in check(source)]


def test_there_is_something_to_check():
  assert len(_product()) > 100


def test_imports_run_downward_only():
  assert _all_of(checks.upward_imports) == []


def test_every_package_has_a_layer_and_every_layer_a_package():
  folders = {
    path.name
    for path in (ROOT / checks.PACKAGE).iterdir()
    if (path / "__init__.py").exists()
  } | {"launch", "configs"}
  assert folders == {name for names in checks.LAYERS for name in names}


def test_files_are_short():
  assert _all_of(checks.long_files) == []


def test_functions_are_short():
  assert _all_of(checks.long_functions) == []


def test_only_launch_prints():
  assert _all_of(checks.prints) == []


def test_no_text_is_run_as_code():
  assert _all_of(checks.code_from_text) == []


def test_the_jailed_program_never_runs_in_our_process():
  assert _all_of(checks.uses_of_jailed) == []


def test_no_handler_swallows_everything():
  assert _all_of(checks.broad_handlers) == []


def test_no_path_of_one_machine():
  tests = checks.read_sources(ROOT, ("tests",))
  mine = [s for s in tests if s.path != "tests/architecture_test.py"]
  assert _all_of(checks.machine_paths, [*SOURCES, *mine]) == []


def test_torch_and_peers_are_for_tests_only():
  for source in SOURCES:
    assert not checks.forbidden_imports(
      source, {"torch", "tunix", "vllm", "verl", "ray"}, "tests only"
    )


def test_the_agent_half_never_imports_jax_not_even_lazily():
  needs_jax = {f"{name.replace('.', '/')}.py" for name in checks.NEEDS_JAX}
  problems = [
    problem
    for source in _product()
    if source.package in checks.WITHOUT_JAX and source.path not in needs_jax
    for problem in checks.forbidden_imports(
      source, checks.ACCELERATOR_STACK, "the agent half runs without jax"
    )
  ]
  assert problems == []


_WITHOUT_JAX = textwrap.dedent(
  """
  import importlib, importlib.abc, sys

  class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
      if name.split(".")[0] in FORBIDDEN:
        raise ModuleNotFoundError(f"{name} is not installed here", name=name)

  sys.meta_path.insert(0, Forbid())
  for name in MODULES:
    importlib.import_module(name)
  """
)

# One scripted episode, from the question to its reward.
_EPISODE = textwrap.dedent(
  """
  import asyncio, pathlib, sys
  from agentflow_jax.agent import (
    episode, executor, generator, planner, settings, verifier)
  from agentflow_jax.core import config, engine, messages
  from agentflow_jax.engines import retrying, scripted
  from agentflow_jax.rewards import rule_reward
  from agentflow_jax.rollout import group_rollout
  from agentflow_jax.evaluation import scores
  from agentflow_jax.tasks.worldfacts import (
    pages, questions, random_strategy, rules, split)
  from agentflow_jax.tools import bm25_index, registry

  role = messages.ModuleRole
  plan = lambda text, context: random_strategy.oracle_plan(text)
  ask = retrying.RetryingEngine(
    scripted.ScriptedEngine({**rules.rules(), role.PLANNER: plan}), 0, 60.0)
  sampling, c = engine.SamplingParams(), config.Config()
  c.agent.prompt_style = "compact"
  modules = settings.AgentModules(
    planner=planner.Planner(ask, sampling),
    executor=executor.Executor(ask, sampling),
    verifier=verifier.Verifier(ask, sampling),
    generator=generator.Generator(ask, sampling),
    count_tokens=len)
  bm25_index.build(
    (bm25_index.Passage(id=i, title=t, text=x) for i, t, x in pages.passages()),
    pathlib.Path(DIRECTORY))

  async def main():
    toolbox = registry.build(c.tools, registry.Resources(
      engine=ask, sampling=sampling, search_index_dir=DIRECTORY))
    async def run(task, member):
      return await episode.run_episode(
        task, modules, toolbox, settings.EpisodeSettings.from_config(c, False),
        engine.CallContext(role=role.PLANNER, member=member))
    tasks = questions.tasks(split.HELD_OUT)[:3]
    groups = await group_rollout.run_groups(
      tasks, run, rule_reward.RuleReward({t.scorer for t in tasks}),
      group_size=2, max_concurrent_episodes=4, timeout_s=60.0)
    await toolbox.aclose()
    return [t for g in groups for t in g.trajectories]

  found = asyncio.run(main())
  summary = scores.summarise(found, members=2)
  assert not FORBIDDEN & {name.split(".")[0] for name in sys.modules}
  print("accuracy", summary["accuracy"])
  """
)


def _run(code, **names):
  lines = [f"{name} = {value!r}" for name, value in names.items()]
  return subprocess.run(
    [sys.executable, "-c", "\n".join([*lines, code])],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


def _agent_half():
  names = []
  for source in _product():
    if source.package in checks.WITHOUT_JAX:
      name = source.path.removesuffix(".py").removesuffix("/__init__")
      names.append(name.replace("/", "."))
  return names


def test_the_agent_half_imports_and_runs_without_jax(tmp_path):
  modules = [name for name in _agent_half() if name not in checks.NEEDS_JAX]
  assert len(modules) > 60
  done = _run(
    _WITHOUT_JAX + _EPISODE,
    FORBIDDEN=set(checks.ACCELERATOR_STACK),
    MODULES=modules,
    DIRECTORY=str(tmp_path / "index"),
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == "accuracy 1.0"


def test_the_import_hook_catches_jax():
  done = _run(
    _WITHOUT_JAX,
    FORBIDDEN=set(checks.ACCELERATOR_STACK),
    MODULES=list(checks.NEEDS_JAX),
  )
  assert done.returncode == 1
  assert "is not installed here" in done.stderr


# The checks on sources that are wrong on purpose.


def _bad(text, path="agentflow_jax/agent/x.py"):
  return checks.Source(path, textwrap.dedent(text))


@pytest.mark.parametrize(
  ("path", "text", "problems"),
  [
    ("agentflow_jax/agent/x.py", "from agentflow_jax.core import task", 0),
    ("agentflow_jax/agent/x.py", "from agentflow_jax.agent import memory", 0),
    ("agentflow_jax/agent/x.py", "from agentflow_jax.tools import text", 1),
    ("agentflow_jax/agent/x.py", "import agentflow_jax.training.loop", 1),
    ("agentflow_jax/core/x.py", "from agentflow_jax.agent import memory", 1),
    ("agentflow_jax/agent/x.py", "from . import memory", 1),
    ("agentflow_jax/agent/x.py", "from agentflow_jax.new import x", 1),
    ("agentflow_jax/new/x.py", "import os", 1),
    ("agentflow_jax/training/x.py", "from agentflow_jax.testing import x", 1),
    ("configs/x.py", "from agentflow_jax.core import config", 0),
    ("configs/x.py", "from agentflow_jax.models import presets", 1),
    (
      "agentflow_jax/core/x.py",
      "def f():\n  from agentflow_jax.agent import memory",
      1,
    ),
  ],
)
def test_upward_imports_are_found(path, text, problems):
  assert len(checks.upward_imports(_bad(text, path))) == problems


def test_forbidden_imports_are_found_in_functions_too():
  source = _bad("""
    import numpy
    def f():
      import jax.numpy as jnp
      from torch import nn
  """)
  found = checks.forbidden_imports(source, {"jax", "torch"}, "no")
  assert [problem.split(":")[1] for problem in found] == ["4", "5"]


def test_long_files_and_functions_are_found():
  lines = checks.MAX_FILE_LINES
  assert checks.long_files(_bad("x = 1\n" * lines)) == []
  assert len(checks.long_files(_bad("x = 1\n" * (lines + 1)))) == 1
  body = "  x = 1\n" * (checks.MAX_FUNCTION_LINES - 1)
  for head in ("def f():\n", "async def f():\n"):
    assert checks.long_functions(_bad(head + body)) == []
    assert len(checks.long_functions(_bad(head + body + "  x = 1\n"))) == 1
  assert len(checks.long_functions(_bad("@g\ndef f():\n" + body))) == 1


def test_prints_are_found_outside_launch():
  assert len(checks.prints(_bad("print('x')"))) == 1
  assert checks.prints(_bad("print('x')", "launch/x.py")) == []
  assert checks.prints(_bad("writer.print('x'); fingerprint('x')")) == []


@pytest.mark.parametrize(
  "text",
  [
    "exec(text)",
    "eval(text)",
    "compile(text, 'f', 'exec')",
    "__import__(text)",
    "os.system(text)",
    "subprocess.run(text, shell=True)",
    "subprocess.Popen(text, shell=flag)",
  ],
)
def test_running_text_is_found(text):
  assert len(checks.code_from_text(_bad(text))) == 1


@pytest.mark.parametrize(
  ("text", "problems"),
  [
    ("from agentflow_jax.tools import sandbox_guest", 0),
    ("x = sandbox_guest.EXIT_MEMORY, sandbox_guest.__file__", 0),
    ("sandbox_guest.main()", 1),
    ("from agentflow_jax.tools.sandbox_guest import main", 1),
  ],
)
def test_running_the_jailed_program_is_found(text, problems):
  assert len(checks.uses_of_jailed(_bad(text))) == problems


def test_the_jail_excuses_one_file_only():
  assert checks.code_from_text(_bad("exec(text)", checks.JAILED)) == []
  assert len(checks.code_from_text(_bad("exec(text)"))) == 1


def test_harmless_relatives_are_not_code_from_text():
  text = "re.compile(x); ast.literal_eval(x); run(['ls'], shell=False)"
  assert checks.code_from_text(_bad(text)) == []


@pytest.mark.parametrize(
  ("handler", "problems"),
  [
    ("except:\n  pass", 1),
    ("except Exception:\n  log()", 1),
    ("except (ValueError, BaseException) as error:\n  log()", 1),
    ("except Exception as error:\n  raise Typed() from error", 1),
    ("except BaseException:\n  clean()\n  raise", 0),
    ("except (ValueError, OSError):\n  pass", 0),
  ],
)
def test_broad_handlers_are_found(handler, problems):
  text = f"try:\n  f()\n{handler}\n"
  assert len(checks.broad_handlers(_bad(text))) == problems


def test_an_excuse_holds_for_one_function_only():
  text = """
    def {}():
      try:
        f()
      except Exception as error:
        raise Typed() from error
  """
  path, function = next(iter(checks.BROAD_HANDLERS.items()))
  assert checks.broad_handlers(_bad(text.format(function), path)) == []
  assert len(checks.broad_handlers(_bad(text.format("other"), path))) == 1


@pytest.mark.parametrize(
  ("line", "problems"),
  [
    ("open('/home/me/x')", 1),
    ("# see /root/notes", 1),
    ("path = 'C:\\\\Users\\\\me'", 1),
    ("--checkpoint=/path/to/Qwen", 0),
    ("open('/proc/self/status'); x = a/data/b; 'https://x.org/data/y'", 0),
  ],
)
def test_machine_paths_are_found(line, problems):
  assert len(checks.machine_paths(_bad(line))) == problems
