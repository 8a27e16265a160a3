"""The documents tell the truth: commands parse, files exist, links resolve."""

import docs_checks as checks
import pytest

_SCRIPTS = sorted(
  file
  for folder in ("launch", "configs")
  for file in (checks.ROOT / folder).glob("*.py")
)


def _documents():
  for name in checks.DOCS:
    yield name, (checks.ROOT / name).read_text("utf-8")


def _commands():
  for name, text in _documents():
    yield from checks.commands(name, text)
  for file in _SCRIPTS:
    name = file.relative_to(checks.ROOT).as_posix()
    yield from checks.commands(name, checks.docstring_source(file))


def test_every_command_parses():
  found = list(_commands())
  problems = [checks.command_problem(command) for command in found]
  assert [problem for problem in problems if problem] == []


def test_the_commands_that_a_reader_needs_are_shown():
  shown = {
    command.text.split()[1]
    for command in _commands()
    if command.where.startswith("README.md")
  }
  assert shown >= {
    "launch/quickstart.sh",
    "launch/test.sh",
    "launch/train.py",
    "launch/solve.py",
    "launch/import_hf.py",
    "launch/export_hf.py",
  }


def test_every_named_file_exists():
  problems = [
    problem
    for name, text in _documents()
    for problem in checks.path_problems(name, text)
  ]
  assert problems == []


def test_every_named_extra_exists():
  """In documents, and where the code tells a user what to install."""
  texts = dict(_documents())
  for folder in ("launch", "agentflow_jax"):
    for file in (checks.ROOT / folder).rglob("*.py"):
      name = file.relative_to(checks.ROOT).as_posix()
      texts[name] = file.read_text("utf-8")
  problems = [
    problem
    for name, text in texts.items()
    for problem in checks.extra_problems(name, text)
  ]
  assert problems == []


def test_links_resolve():
  problems = [
    problem
    for name, text in _documents()
    for problem in checks.link_problems(name, text)
  ]
  assert problems == []


def test_build_lists_every_file():
  """`python tests/docs_checks.py` rewrites the list."""
  build = (checks.ROOT / "BUILD.md").read_text("utf-8")
  assert checks.list_problems(build) == []


# The checks on documents that are wrong on purpose.


@pytest.fixture
def project(tmp_path):
  """A launch script, a config and a package of one file."""
  (tmp_path / "launch").mkdir()
  (tmp_path / "launch" / "x.py").write_text(
    '"""Does x."""\n'
    "a = flags.DEFINE_string('out', None, 'h', required=True)\n"
    "b = flags.DEFINE_integer('n', 1, 'h')\n"
    "c = flags.DEFINE_enum('how', 'a', ['a', 'b'], 'h')\n"
    "f = flags.DEFINE_enum('set', 'a', [*sets.NAMES, 'b'], 'h')\n"
    "d = flags.DEFINE_bool('fast', False, 'h')\n"
    "e = cli.define_config_flag()\n"
    "cli.run_app(main)\n"
  )
  (tmp_path / "launch" / "y.py").write_text(
    '"""Does y."""\ncli.run_app(main, positional=True)\n'
  )
  (tmp_path / "launch" / "z.sh").write_text(
    '#!/bin/bash\n# Does z.\ncase "$1" in --seed*) ;; esac\n'
  )
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "c.py").write_text('"""A config."""\n')
  return tmp_path


@pytest.mark.parametrize(
  ("text", "problem"),
  [
    ("python launch/x.py --out=a", None),
    ("python launch/x.py --out=a --n=2 --how=b --fast --nofast", None),
    ("python launch/x.py --out=a --config=configs/c.py", None),
    ("python launch/x.py --out=a --config.learner.lr=3e-4  # why", None),
    ("python launch/x.py --help", None),
    ("python launch/x.py --out=a --set=anything", None),
    ("python launch/x.py", "--out is required"),
    ("python launch/x.py --out=a --outt=b", "no flag --outt"),
    ("python launch/x.py --out=a --n=two", "is no integer"),
    ("python launch/x.py --out=a --how=c", "is no enum"),
    ("python launch/x.py --out=a question", "takes no argument"),
    ("python launch/x.py --out=a --config=configs/d.py", "no config file"),
    ("python launch/x.py --out=a --config.learner.lrr=1", "unknown config key"),
    ("python launch/x.py --out=a --config.learner.lr=x", "must be a number"),
    ("python launch/w.py", "there is no launch/w.py"),
    ('python launch/x.py "a', "No closing quotation"),
    ('python launch/y.py "a question"', None),
    ("python launch/y.py --config=configs/c.py", "takes no --config"),
    ("bash launch/z.sh --seed=1", None),
    ("bash launch/z.sh --sneed=1", "knows no --sneed"),
    ("bash launch/z.sh --config.learner.lrr=1", "unknown config key"),
  ],
)
def test_bad_commands_are_found(project, text, problem):
  found = checks.command_problem(checks.Command("doc:1", text), project)
  assert (found is None) == (problem is None), found
  if problem:
    assert problem in found


def test_commands_are_read_with_their_continuation_lines():
  text = (
    "```bash\npython launch/x.py --a=1 \\\n  --b=2\n```\n"
    "Use `bash launch/z.sh` or `ls`.\n"
  )
  assert list(checks.commands("doc", text)) == [
    checks.Command("doc:2", "python launch/x.py --a=1 --b=2"),
    checks.Command("doc:5", "bash launch/z.sh"),
  ]


def test_a_docstring_keeps_its_backslashes(tmp_path):
  file = tmp_path / "x.py"
  file.write_text('"""X.\n\n  python launch/x.py \\\n    --a=1\n"""\n')
  (command,) = checks.commands("x", checks.docstring_source(file))
  assert command.text == "python launch/x.py --a=1"


def test_missing_files_and_links_are_found(project):
  text = (
    "# Some title\n"
    "See `launch/x.py`, `launch/gone.py`, [x](launch/x.py), [y](gone.md),\n"
    "[here](#some-title), [there](#no-title), ![p](p.png), [w](https://a.org)\n"
  )
  (project / "doc.md").write_text(text)
  assert checks.path_problems("doc.md", text, project) == [
    "doc.md: there is no launch/gone.py"
  ]
  assert [p.split()[-1] for p in checks.link_problems("doc.md", text, project)]
  assert len(checks.link_problems("doc.md", text, project)) == 3


def test_unknown_extras_are_found(tmp_path):
  (tmp_path / "setup.py").write_text('_EXTRAS = {"cuda": ["jax"], "mcp": []}\n')
  text = (
    'pip install -e ".[cuda]"  # or ".[x]"\n'
    "`pip install -e '.[cuda, nope]'`, `pip install 'agentflow_jax[gone]'`,\n"
    'pip install "jax[tpu]", a list[int]\n'
  )
  assert checks.extra_problems("doc", text, tmp_path) == [
    "doc: setup.py has no extra 'nope'",
    "doc: setup.py has no extra 'gone'",
  ]


def test_the_documents_are_all_there():
  found = {f"docs/{f.name}" for f in (checks.ROOT / "docs").glob("*.md")}
  assert found and found <= set(checks.DOCS)
  assert {"README.md", "BUILD.md", "docs/tools.md"} <= set(checks.DOCS)


def test_the_missing_line_of_the_list_is_named(project):
  lines = checks.file_list(project)
  assert "- `x.py`: Does x." in lines and "- `z.sh`: Does z." in lines
  build = "\n".join([checks.LIST_START, *lines, checks.LIST_END])
  assert checks.list_problems(build, project) == []
  (project / "launch" / "new.py").write_text('"""Does more."""\n')
  (project / "configs" / "c.py").unlink()
  (project / "configs" / "d.py").write_text("x = 1\n")
  assert checks.list_problems(build, project) == [
    "BUILD.md lacks the line: - `new.py`: Does more.",
    "BUILD.md lacks the line: - `d.py`: UNDESCRIBED: give it a first line",
    "BUILD.md has no file for: - `c.py`: A config.",
    "- `d.py`: UNDESCRIBED: give it a first line",
  ]
