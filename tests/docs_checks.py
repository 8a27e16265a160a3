"""What the docs test looks for; run as a script, it rewrites BUILD.md's list.

  python tests/docs_checks.py

The list of files in BUILD.md is made of the first docstring lines, so a new
file is described where it is written and nowhere else.
"""

import ast
import dataclasses
import functools
import pathlib
import re
import shlex
from collections.abc import Iterator

from agentflow_jax.core import errors
from agentflow_jax.training import overrides

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = (
  *("README.md", "BUILD.md", "CHANGELOG.md", "third_party/README.md"),
  *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
)
LISTED = ("agentflow_jax", "launch", "configs")
LIST_START = "<!-- file list: python tests/docs_checks.py -->"
LIST_END = "<!-- end of the file list -->"
# Files that can not describe themselves, by folder.
DATA = {
  "agentflow_jax/evaluation/report/assets": (
    "Style sheets and scripts that the pages carry inside."
  ),
  "agentflow_jax/tasks/worldfacts/data": (
    "The facts, one tab-separated table per kind of thing."
  ),
}

_PATH = re.compile(
  r"(?:agentflow_jax|launch|configs|tests|third_party)/[\w./-]*"
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_EXTRAS = re.compile(r"pip install [^\n`]*?(?:agentflow_jax|\.)\[([^\]\n]*)\]")
_COMMAND = re.compile(r"^\s*(?:\$ )?((?:python|bash) (?:launch|tests)/.*)$")


@dataclasses.dataclass(frozen=True)
class Command:
  """A command line as a document shows it, continuation lines joined."""

  where: str  # FILE:LINE
  text: str


def commands(where: str, text: str) -> Iterator[Command]:
  """Commands that start a line, and those in `backticks`."""
  lines = text.splitlines()
  for number, line in enumerate(lines):
    if match := _COMMAND.match(line):
      joined, rest = match[1], number
      while joined.endswith("\\") and rest + 1 < len(lines):
        rest += 1
        joined = joined[:-1] + lines[rest].strip()
      yield Command(f"{where}:{number + 1}", joined)
    else:
      for inline in re.findall(r"`((?:python|bash) launch/[^`]+)`", line):
        yield Command(f"{where}:{number + 1}", inline)


def docstring_source(path: pathlib.Path) -> str:
  """The module docstring as written, so that backslashes are still there."""
  text = path.read_text("utf-8")
  first = next(iter(ast.parse(text).body), None)
  if not (
    isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
  ):
    return ""
  return ast.get_source_segment(text, first) or ""


def command_problem(command: Command, root: pathlib.Path = ROOT) -> str | None:
  """Why the command would be refused, or None."""
  try:
    words = shlex.split(command.text, comments=True)
  except ValueError as error:
    return f"{command.where}: {command.text!r}: {error}"
  _, script, *arguments = words
  if not (root / script).is_file():
    return f"{command.where}: there is no {script}"
  check = _script_problem if script.endswith(".sh") else _flags_problem
  problem = check(root / script, arguments, root)
  return f"{command.where}: {command.text!r}: {problem}" if problem else None


def _script_problem(script, arguments, root) -> str | None:
  """Arguments of a shell script: config keys, or options it mentions."""
  text = script.read_text("utf-8")
  for argument in arguments:
    name = argument.partition("=")[0]
    if name.startswith("--config"):
      if problem := _config_problem([argument], root):
        return problem
    elif name.startswith("-") and name not in text:
      return f"{script.name} knows no {name}"
  return None


def _flags_problem(script, arguments, root) -> str | None:
  """Arguments of a launch script against the flags it defines."""
  flags, accepts = _defined_flags(script)
  given, config_arguments, positional = set(), [], []
  for argument in arguments:
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-"):
      positional.append(argument)
    elif name == "config" or name.startswith(("config.", "noconfig.")):
      config_arguments.append(argument)
    elif name in flags or name.removeprefix("no") in flags:
      flag = flags.get(name) or flags[name.removeprefix("no")]
      given.add(flag.name)
      if problem := flag.problem(value if equals else None):
        return problem
    elif name != "help":
      return f"{script.name} has no flag --{name}"
  if positional and "positional" not in accepts:
    return f"{script.name} takes no argument {positional[0]!r}"
  if config_arguments and "config" not in accepts:
    return f"{script.name} takes no --config"
  missing = {flag.name for flag in flags.values() if flag.required} - given
  if missing and "--help" not in arguments:
    return f"--{min(missing)} is required"
  return _config_problem(config_arguments, root)


def _config_problem(arguments, root) -> str | None:
  """Unknown config keys, wrong types, missing config files."""
  try:
    _, file, *_ = overrides.normalise(["", *arguments], "")
  except errors.ConfigError as error:
    return str(error)
  path = file.partition("=")[2]
  if path and not (root / path).is_file():
    return f"there is no config file {path}"
  return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
  """What a launch script defines with `flags.DEFINE_...`."""

  name: str
  kind: str  # string, integer, float, bool, enum, ...
  choices: tuple[str, ...] = ()
  required: bool = False

  def problem(self, value: str | None) -> str | None:
    """Why the value does not fit; None is a flag without `=value`."""
    if value is None:
      fits = self.kind in ("bool", "boolean")
    elif self.kind in ("integer", "float"):
      fits = _is_number(value, int if self.kind == "integer" else float)
    else:
      fits = not self.choices or value in self.choices
    return None if fits else f"--{self.name}={value} is no {self.kind}"


def _is_number(text: str, kind: type) -> bool:
  try:
    kind(text)
  except ValueError:
    return False
  return True


def _defined_flags(script: pathlib.Path) -> tuple[dict[str, Flag], set[str]]:
  """Its flags, and which of "config" and "positional" it accepts."""
  flags, accepts = {}, set()
  for node in ast.walk(ast.parse(script.read_text("utf-8"))):
    if not isinstance(node, ast.Call):
      continue
    called = ast.unparse(node.func)
    if called.endswith("define_config_flag"):
      accepts.add("config")
    elif called.endswith("run_app") and len(node.args) + len(node.keywords) > 1:
      accepts.add("positional")
    elif match := re.fullmatch(r"flags\.DEFINE_(?:multi_)?(\w+)", called):
      name, *rest = node.args
      assert isinstance(name, ast.Constant)
      choices = _literal_choices(rest[1]) if match[1] == "enum" else ()
      required = any(
        k.arg == "required" and ast.unparse(k.value) == "True"
        for k in node.keywords
      )
      flags[name.value] = Flag(
        name=name.value,
        kind=match[1],
        choices=choices,
        required=required,
      )
  return flags, accepts


def _literal_choices(node: ast.expr) -> tuple[str, ...]:
  """The values of an enum that are written out; () when they are computed."""
  items = node.elts if isinstance(node, ast.List | ast.Tuple) else []
  if not all(isinstance(item, ast.Constant) for item in items):
    return ()
  return tuple(item.value for item in items if isinstance(item, ast.Constant))


def path_problems(where: str, text: str, root: pathlib.Path = ROOT):
  """Files of the project that a document names and that do not exist."""
  return [
    f"{where}: there is no {path}"
    for path in sorted(set(_PATH.findall(text)))
    if not (root / path.rstrip(".")).exists()
  ]


def extra_problems(where: str, text: str, root: pathlib.Path = ROOT):
  """Extras in `pip install` commands that setup.py does not have."""
  known = _extras(root / "setup.py")
  return [
    f"{where}: setup.py has no extra {name.strip()!r}"
    for names in _EXTRAS.findall(text)
    for name in names.split(",")
    if name.strip() not in known
  ]


@functools.cache
def _extras(setup: pathlib.Path) -> set[str]:
  """The keys of its `_EXTRAS`; importing it would run the installation."""
  for node in ast.parse(setup.read_text("utf-8")).body:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
      if ast.unparse(node.targets[0]) == "_EXTRAS":
        return {ast.literal_eval(key) for key in node.value.keys if key}
  raise AssertionError(f"{setup} has no _EXTRAS")


def link_problems(where: str, text: str, root: pathlib.Path = ROOT):
  """Links to files and headings that do not exist; addresses are not tried."""
  found = []
  for match in _LINK.finditer(text):
    target = match[1] or match[2]
    if re.match(r"https?://[\w.-]+", target):
      continue
    name, _, heading = target.partition("#")
    file = (root / where).parent / name if name else root / where
    if not file.exists():
      found.append(f"{where}: link to {target}, which does not exist")
    elif heading and heading not in _headings(file.read_text("utf-8")):
      found.append(f"{where}: {name or where} has no heading #{heading}")
  return found


def _headings(text: str) -> set[str]:
  """Anchors as GitHub makes them."""
  titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
  return {
    re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")
    for title in titles
  }


def file_list(root: pathlib.Path = ROOT) -> list[str]:
  """The lines of BUILD.md's list: a heading per folder, a line per file."""
  lines = []
  for folder in _folders(root):
    name = folder.relative_to(root).as_posix()
    if name in DATA:
      lines += ["", f"**`{name}/`** {DATA[name]}"]
      continue
    init = folder / "__init__.py"
    about = _described(init) if init.exists() else ""
    lines += ["", f"**`{name}/`** {about}".rstrip(), ""]
    lines += [
      f"- `{file.name}`: {_described(file)}"
      for file in sorted(folder.iterdir())
      if file.is_file() and file.name != "__init__.py"
    ]
  return lines[1:]


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
  tops = [root / name for name in LISTED if (root / name).is_dir()]
  below = [path for top in tops for path in top.rglob("*") if path.is_dir()]
  return [
    path
    for path in sorted({*tops, *below}, key=lambda p: _order(root, p))
    if "__pycache__" not in path.parts
    and any(file.is_file() for file in path.iterdir())
  ]


def _order(root: pathlib.Path, path: pathlib.Path):
  name = path.relative_to(root).as_posix()
  return LISTED.index(name.split("/")[0]), name


def _described(file: pathlib.Path) -> str:
  """First line of its docstring, first sentence of a script's comment."""
  text = file.read_text("utf-8")
  if file.suffix == ".py":
    about = ast.get_docstring(ast.parse(text)) or ""
  else:
    block = re.search(r"^(?:# .+\n)+", text, re.MULTILINE)
    sentence = " ".join(block[0].replace("# ", "").split()) if block else ""
    about = re.split(r"(?<=\.) ", sentence)[0]
  return about.split("\n")[0] or "UNDESCRIBED: give it a first line"


def list_problems(build: str, root: pathlib.Path = ROOT) -> list[str]:
  """Lines that BUILD.md's list lacks, and lines it has too many."""
  if LIST_START not in build or LIST_END not in build:
    return [f"BUILD.md lacks {LIST_START!r} or {LIST_END!r}"]
  shown = build.split(LIST_START)[1].split(LIST_END)[0].strip("\n").split("\n")
  wanted = file_list(root)
  missing = [f"BUILD.md lacks the line: {x}" for x in wanted if x not in shown]
  surplus = [f"BUILD.md has no file for: {x}" for x in shown if x not in wanted]
  undescribed = [line for line in wanted if "UNDESCRIBED" in line]
  if shown != wanted and not missing and not surplus:
    missing = ["BUILD.md lists files in another order"]
  return missing + surplus + undescribed


def main() -> None:
  path = ROOT / "BUILD.md"
  head, rest = path.read_text("utf-8").split(LIST_START)
  tail = rest.split(LIST_END)[1]
  lines = "\n".join(file_list())
  path.write_text(
    f"{head}{LIST_START}\n{lines}\n{LIST_END}{tail}", encoding="utf-8"
  )


if __name__ == "__main__":
  main()
