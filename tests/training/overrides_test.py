"""Config overrides: every spelling, and a sentence for every mistake."""

import pytest

from agentflow_jax.core import errors
from agentflow_jax.training import overrides


def _normalise(*arguments):
  return overrides.normalise(["prog", *arguments], "default.py")[1:]


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ((), ["--config=default.py"]),
    (("--out=x", "pos"), ["--config=default.py", "--out=x", "pos"]),
    (
      ("--config.learner.lr=1", "--config=a.py"),
      ["--config=a.py", "--config.learner.lr=1"],
    ),
    (
      ("-config", "a.py", "-config.learner.lr", "1e-3"),
      ["--config=a.py", "--config.learner.lr=1e-3"],
    ),
    (
      ("--config.learner.lr=1", "--config.learner.lr=2"),
      ["--config=default.py", "--config.learner.lr=2"],
    ),
    (
      ("--config.training.tensorboard", "--noconfig.training.export_hf"),
      [
        "--config=default.py",
        "--config.training.tensorboard=true",
        "--config.training.export_hf=false",
      ],
    ),
    (
      ("--config.training.tensorboard=0",),
      ["--config=default.py", "--config.training.tensorboard=0"],
    ),
    (
      ("--config.tasks.train=jsonl:a=b.jsonl",),
      ["--config=default.py", "--config.tasks.train=jsonl:a=b.jsonl"],
    ),
    (
      ("--", "--config.learner.lr=1"),
      ["--config=default.py", "--", "--config.learner.lr=1"],
    ),
    (("--configuration=3",), ["--config=default.py", "--configuration=3"]),
  ],
)
def test_spellings(arguments, expected):
  assert _normalise(*arguments) == expected


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("a,b", ("a", "b")),
    (" a , b ", ("a", "b")),
    ("a", ("a",)),
    ("a,", ("a",)),
    ("", ()),
    ("('a','b')", ("a", "b")),
    ('["a"]', ("a",)),
    ("('a')", ("a",)),
    ("()", ()),
  ],
)
def test_tuples(text, names):
  assert _normalise(f"--config.tools.enabled={text}")[1] == (
    f"--config.tools.enabled={names}"
  )


def test_a_preset_comes_before_the_keys_it_sets():
  arguments = ["--config.learner.clip_low=0.1", "--config.learner.preset=dapo"]
  assert _normalise(*arguments)[1:] == [
    "--config.learner.preset=dapo",
    "--config.learner.clip_low=0.1",
  ]


def test_a_repeated_tuple_adds_up():
  arguments = ["--config.tools.enabled=a,b", "--config.tools.enabled", "c"]
  assert _normalise(*arguments)[1:] == [
    "--config.tools.enabled=('a', 'b', 'c')"
  ]


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    (
      "--config.learner.lrr=3",
      "unknown config key 'learner.lrr'; nearest: 'learner.lr'",
    ),
    ("--config.lr=3", "unknown config key 'lr'; nearest: 'learner.lr'"),
    ("--config.=3", "unknown config key ''; nearest: "),
    ("--config.learner=3", "'learner' is a section"),
    ("--config.learner.lr=x", "'learner.lr' must be a number, got 'x'"),
    ("--config.learner.lr=", "'learner.lr' must be a number, got ''"),
    (
      "--config.learner.epochs=1.5",
      "'learner.epochs' must be an integer, got '1.5'",
    ),
    (
      "--config.training.tensorboard=maybe",
      "'training.tensorboard' must be true or false, got 'maybe'",
    ),
    (
      "--config.tools.enabled=(1,)",
      "'tools.enabled' must be a tuple of strings, got '(1,)'",
    ),
    (
      "--config.tools.enabled=(a",
      "'tools.enabled' must be a tuple of strings, got '(a'",
    ),
    ("--noconfig.learner.lr", "only works for keys that are true or false"),
    ("--config.learner.lr", "--config.learner.lr needs a value"),
    ("--config", "--config needs a value"),
  ],
)
def test_mistakes(argument, message):
  with pytest.raises(errors.ConfigError) as caught:
    _normalise(argument)
  assert message in str(caught.value)


def test_two_config_files_are_refused():
  with pytest.raises(errors.ConfigError, match="twice: a.py, b.py"):
    _normalise("--config=a.py", "--config=b.py")
