"""Tools from a config, as a user writes it: validated, built, called."""

import asyncio

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import registry

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)


class Engine:
  """Answers for tools; `prompts` is what it was asked."""

  def __init__(self):
    self.prompts = []

  async def generate(self, messages, sampling, context):
    self.prompts.append(messages[-1].content)
    return engine_lib.Completion(
      text="The kip.", finish_reason=engine_lib.FinishReason.STOP
    )


def toolbox(engine=None, **tools):
  """What a config with these keys under `tools.` gives, validated."""
  config = config_lib.Config()
  for key, value in tools.items():
    config_validation.put(config, f"tools.{key}", value)
  config_validation.validate(config, training=False)
  return registry.build(
    config.tools,
    registry.Resources(
      engine=engine or Engine(),
      sampling=engine_lib.SamplingParams(),
      search_index_dir="",
    ),
  )


def checked_call(toolbox, name, **arguments):
  """The output of one call, after the health check."""
  result = call(toolbox, name, **arguments)
  asyncio.run(toolbox.check())
  asyncio.run(toolbox.aclose())
  assert result.ok, result
  return result.output


def call(toolbox, name, **arguments):
  """The result of one call."""
  return asyncio.run(toolbox[name].execute(arguments, CONTEXT))


def asked(server, path):
  """The bodies of the requests for a path."""
  return [body for _, where, body in server.requests if where == path]
