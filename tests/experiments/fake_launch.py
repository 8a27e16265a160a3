"""A folder like launch/ whose scripts write results at once, without a model.

Each script appends its name and run directory to CALLS and behaves as
BEHAVIOUR says: {run directory's name: "fail" | "stop" | accuracy}.
"""

import json
import pathlib
import textwrap

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation
from agentflow_jax.experiments import runs

_SCRIPT = """
import json, pathlib, sys
here = pathlib.Path(__file__).parent
def value(*names):
  for argument in reversed(sys.argv):
    name, _, text = argument.partition("=")
    if name in names:
      return text
run_dir = pathlib.Path(value("--config.run.run_dir", "--out"))
name = "/".join(run_dir.parts[-2:])
with open(here / "calls", "a") as file:
  file.write(f"{pathlib.Path(__file__).stem} {name}\\n")
behaviour = json.loads((here / "behaviour").read_text())
told = behaviour.get(run_dir.name, behaviour.get(name, 0.5))
if told == "fail":
  sys.exit("error: \\x1b[31mno luck")
if told == "stop":
  print("STOPPED; the same command resumes")
  sys.exit(0)
sys.path.insert(0, %r)
import fake_run
evaluate = pathlib.Path(__file__).stem == "evaluate"
write = fake_run.write_result if evaluate else fake_run.write_run
write(run_dir, told)
print("DONE")
"""


def make(folder: pathlib.Path, **behaviour) -> pathlib.Path:
  """The scripts; `set_behaviour` changes what they do."""
  folder.mkdir()
  here = str(pathlib.Path(__file__).parent)
  for script in ("train.py", "sft.py", "demonstrate.py", "evaluate.py"):
    (folder / script).write_text(textwrap.dedent(_SCRIPT % here))
  set_behaviour(folder, **behaviour)
  return folder


def set_behaviour(folder: pathlib.Path, **behaviour) -> None:
  (folder / "behaviour").write_text(json.dumps(behaviour))


def calls(folder: pathlib.Path) -> list[str]:
  """ "SCRIPT FOLDER/RUN" of every start since the last time."""
  path = folder / "calls"
  lines = path.read_text().splitlines() if path.exists() else []
  path.unlink(missing_ok=True)
  return lines


def settings(tmp_path: pathlib.Path, scripts: pathlib.Path, **changes):
  """Of a config with a warm start; `changes` are of Settings or config keys."""
  config = config_lib.Config()
  config.warm_start.enabled = True
  config.agent.prompt_style = "compact"
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, "scripted:worldfacts")
  given = {k.replace("__", "."): v for k, v in changes.items() if "__" in k}
  for key, value in given.items():
    config_validation.put(config, key, value)
  fields = {k: v for k, v in changes.items() if "__" not in k}
  return runs.Settings(
    **{
      "config": config,
      "arguments": ("--config=some.py", *runs.flags(given)),
      "given": frozenset(given),
      "out": tmp_path / "out",
      "bases": tmp_path / "bases",
      "seeds": (0, 1),
      "scripts": scripts,
    }
    | fields
  )
