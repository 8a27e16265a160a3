"""Every noun and Protocol of core shows a worked example."""

import pathlib
import textwrap

import architecture_checks as checks
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATH = checks.VOCABULARY[0]


def test_every_noun_of_core_shows_a_worked_example():
  core = checks.read_sources(ROOT, (f"{checks.PACKAGE}/core",))
  spoken = [source for source in core if source.path in checks.VOCABULARY]
  assert len(spoken) == len(checks.VOCABULARY)  # none was renamed
  assert [p for s in spoken for p in checks.classes_without_example(s)] == []


@pytest.mark.parametrize(
  ("docstring", "problems"),
  [
    ("Example: `Noun(1)`.", 0),
    ("A thing.\n\n  Example:\n    Noun(1)", 0),
    ("A thing, for example: this.", 1),
    ("A thing.\n\n  Example:", 1),
    ("", 1),
  ],
)
def test_a_noun_without_an_example_is_found(docstring, problems):
  text = f'class Noun:\n  """{docstring}\n  """\n  x = 1\n'
  found = checks.classes_without_example(checks.Source(PATH, text))
  assert len(found) == problems


def test_only_public_classes_of_the_vocabulary_need_one():
  text = textwrap.dedent("""
    class Bare: x = 1
    class _Private: x = 1
    def f():
      class Inner: x = 1
  """)
  (problem,) = checks.classes_without_example(checks.Source(PATH, text))
  assert "Bare" in problem
  elsewhere = checks.Source("agentflow_jax/agent/x.py", text)
  assert checks.classes_without_example(elsewhere) == []
