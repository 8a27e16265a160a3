"""What an attempt raises is its finding; whoever ends the doctor ends it."""

import asyncio

import pytest

from agentflow_jax.assembly import findings
from agentflow_jax.core import errors


class _SilentError(Exception):
  def __str__(self):
    raise ValueError("no words")


class _RawError(BaseException):
  pass


def _tried(error):
  async def attempt():
    raise error

  return asyncio.run(findings.tried("part", attempt))


@pytest.mark.parametrize(
  ("error", "words"),
  [
    (errors.UserError("put it\nin place"), "put it in place"),
    (errors.PromptTooLongError(5, 4), "prompt has 5 tokens"),
    (errors.EngineError(""), "EngineError"),
    (TypeError("a\nb"), "TypeError: a b"),
    (ExceptionGroup("two", [ValueError("x"), OSError()]), "two (2 sub-"),
    (SystemExit(0), "SystemExit: 0"),
    (asyncio.CancelledError(), "CancelledError"),
    (_RawError("raw"), "RawError: raw"),
    (_SilentError(), "SilentError: <exception str() failed>"),
  ],
)
def test_what_is_raised_is_one_line(error, words):
  found = _tried(error)
  assert not found.ok
  assert words in found.detail
  assert "\n" not in found.detail


def test_a_key_is_hidden_before_the_line_is_cut(monkeypatch):
  monkeypatch.setenv("SOME_KEY", "canary-71f0c2d5")
  for before in range(380, 400):
    said = str(_tried(OSError(f"{'x' * before}canary-71f0c2d5")))
    assert "canar" not in said
    assert len(said) < 450


def test_who_ends_the_doctor_ends_it():
  with pytest.raises(KeyboardInterrupt):
    _tried(KeyboardInterrupt())

  async def main():
    task = asyncio.create_task(findings.tried("part", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task

  asyncio.run(main())
