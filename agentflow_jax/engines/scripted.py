"""ScriptedEngine: answers by rule, with a Python function per role.

For frozen modules whose job can be written down (the embedded world), and for
tests. A rule sees what a language model would see, the text of the last user
message (and of the answer begun behind it), and nothing else. It has no token
ids, so it can not be trained.
"""

from collections.abc import Callable, Mapping, Sequence

from agentflow_jax.core import continuing, errors
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib

# The last user message and the call's place in the run, to an answer.
Rule = Callable[[str, engine_lib.CallContext], str]


class ScriptedEngine:
  """Implements core `Engine` with one rule per role.

  Example:
    ScriptedEngine({ModuleRole.VERIFIER: lambda text, context:
                    "Conclusion: STOP"}, name="always_stop")
  """

  def __init__(
    self, rules: Mapping[messages_lib.ModuleRole, Rule], name: str = "scripted"
  ):
    self._rules = dict(rules)
    self._name = name

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """The rule's answer; `sampling` has nothing to act on.

    Raises:
      EngineError: no rule for `context.role`, or no user message. An exception
        of the rule itself is a bug and travels on.
    """
    rule = self._rules.get(context.role)
    if rule is None:
      raise errors.EngineError(f"{self._name} has no rule for {context.role}")
    prompt = continuing.last_text(messages)
    if prompt is None:
      raise errors.EngineError(f"{self._name} was asked without a user message")
    return engine_lib.Completion(
      text=rule(prompt, context),
      finish_reason=engine_lib.FinishReason.STOP,
    )
