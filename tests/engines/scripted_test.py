"""ScriptedEngine: rules by role, and what a rule gets to see."""

import asyncio

import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import scripted

ROLE = messages_lib.ModuleRole


def _ask(engine, role, *messages):
  return asyncio.run(
    engine.generate(
      [messages_lib.Message(*message) for message in messages],
      engine_lib.SamplingParams(),
      engine_lib.CallContext(role=role, turn=2),
    )
  )


def test_the_rule_of_the_role_sees_the_last_user_message():
  engine = scripted.ScriptedEngine(
    {
      ROLE.VERIFIER: lambda text, context: f"{text} {context.turn}",
      ROLE.EXECUTOR: lambda text, context: "other",
    }
  )
  messages = (
    ("system", "s"),
    ("user", "first"),
    ("assistant", "a"),
    ("user", "last"),
  )
  completion = _ask(engine, ROLE.VERIFIER, *messages)
  assert completion.text == "last 2"
  assert completion.finish_reason is engine_lib.FinishReason.STOP
  assert completion.token_ids == completion.prompt_token_ids == ()
  assert completion.policy_version == -1
  assert _ask(engine, ROLE.EXECUTOR, *messages).text == "other"


def test_a_role_without_a_rule_is_an_engine_error():
  engine = scripted.ScriptedEngine({}, name="empty")
  with pytest.raises(errors.EngineError, match="empty has no rule for judge"):
    _ask(engine, ROLE.JUDGE, ("user", "x"))


def test_no_user_message_is_an_engine_error():
  engine = scripted.ScriptedEngine({ROLE.JUDGE: lambda t, c: "x"})
  with pytest.raises(errors.EngineError, match="without a user message"):
    _ask(engine, ROLE.JUDGE, ("system", "x"))


def test_a_bug_in_a_rule_travels_on():
  def broken(text, context):
    raise ZeroDivisionError

  engine = scripted.ScriptedEngine({ROLE.JUDGE: broken})
  with pytest.raises(ZeroDivisionError):
    _ask(engine, ROLE.JUDGE, ("user", "x"))


def test_rules_are_copied():
  rules = {ROLE.JUDGE: lambda t, c: "x"}
  engine = scripted.ScriptedEngine(rules)
  rules.clear()
  assert _ask(engine, ROLE.JUDGE, ("user", "q")).text == "x"
