"""The redactor: which variables are secret, and in which spellings."""

import pytest

from agentflow_jax.core import redaction


@pytest.mark.parametrize(
  "name",
  ["OPENAI_API_KEY", "HF_TOKEN", "aws_secret", "DB_PASSWORD", "KEYFILE"],
)
def test_a_secret_name_hides_its_value(name):
  redact = redaction.Redactor.from_environment({name: "canary-7f3a"})
  assert redact("a canary-7f3a b canary-7f3a") == "a [redacted] b [redacted]"


@pytest.mark.parametrize(
  "environment",
  [
    {"HOME": "canary-7f3a"},  # no secret by name
    {"HF_TOKEN": "canary7"},  # 7 characters: too short to be told from text
    {"HF_TOKEN": ""},
    {},
  ],
)
def test_other_values_stay(environment):
  redact = redaction.Redactor.from_environment(environment)
  assert redact("canary-7f3a canary7") == "canary-7f3a canary7"


@pytest.mark.parametrize(
  "written",
  [
    'p+w/"d\n1é',
    "p%2Bw%2F%22d%0A1%C3%A9",
    'p+w/\\"d\\n1\\u00e9',
    'p+w/\\"d\\n1é',
    'p+w/"d\\n1é',
  ],
)
def test_common_spellings_are_hidden(written):
  redact = redaction.Redactor(['p+w/"d\n1é'])
  assert redact(f"<{written}>") == "<[redacted]>"


def test_a_secret_inside_a_longer_one_leaves_no_remainder():
  redact = redaction.Redactor(["abcdefgh", "abcdefgh-and-more"])
  assert redact("abcdefgh-and-more abcdefgh") == "[redacted] [redacted]"


def test_the_own_environment_is_the_default(monkeypatch):
  monkeypatch.setenv("MY_TOKEN", " canary-7f3a\n")
  assert redaction.Redactor.from_environment()("xcanary-7f3ax") == (
    "x[redacted]x"
  )
