"""Tries every enabled tool and MCP server, each built on its own.

A tool that asks a model of the run is checked with a stand-in for it, and its
finding says so. Where the tools' engine is an API that does not work, a tool
that asks it fails as well, and one that does not is still checked.
"""

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import engine_check, findings
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import metered, registry, user_tools


class StandIn:
  """Answers for a model that is not loaded."""

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """Always the same small program."""
    del messages, sampling, context
    return engine_lib.Completion(
      text="```python\nprint(4)\n```",
      finish_reason=engine_lib.FinishReason.STOP,
    )


class Broken:
  """Stands for an engine that was found not to work, and is not asked again."""

  def __init__(self, name: str):
    self._name = name

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """Always raises EngineError."""
    del messages, sampling, context
    raise errors.EngineError(
      f"it asks engines.tool ({self._name}), which failed above"
    )


class _Contained(metered.MeteredTool):
  """A tool that may call sys.exit, which would end the event loop."""

  async def check(self) -> None:
    await _contained(super().check())

  async def aclose(self) -> None:
    call = _contained(super().aclose())
    await findings.answered(call, "to close it")


async def _contained(call: Awaitable[None]) -> None:
  try:
    await call
  except SystemExit as error:
    raise errors.ToolHostError(f"SystemExit: {error.code}") from error


async def check(
  config: config_lib.Config, engine: findings.Finding
) -> AsyncIterator[findings.Finding]:
  """Yields a finding per module of the user's, tool and MCP server.

  Args:
    config: validated.
    engine: what was found of `engines.tool`.
  """
  for module in config.tools.user_modules:
    attempt = functools.partial(_import, module)
    yield await findings.tried(f"module {module}", attempt)
  with tempfile.TemporaryDirectory() as scratch:
    for label, part in _parts(config):
      attempt = functools.partial(
        _check_one, label, part, engine.ok, pathlib.Path(scratch)
      )
      yield await findings.tried(f"tool {label}", attempt)


def _parts(
  config: config_lib.Config,
) -> Iterator[tuple[str, config_lib.Config]]:
  """A config per tool; the modules are imported by then."""
  parts = [
    (name, {"enabled": (name,), "mcp_servers": ()})
    for name in config.tools.enabled
  ]
  parts += [
    (entry.partition("=")[0], {"enabled": (), "mcp_servers": (entry,)})
    for entry in config.tools.mcp_servers
  ]
  for label, chosen in parts:
    tools = dataclasses.replace(config.tools, user_modules=(), **chosen)
    yield label, dataclasses.replace(config, tools=tools)


async def _import(module: str) -> str:
  user_tools.load((module,))
  return "imported"


async def _check_one(
  label: str, part: config_lib.Config, engine_works: bool, scratch: pathlib.Path
) -> str:
  name = part.engines.tool
  async with contextlib.AsyncExitStack() as stack:
    note = ""
    sampling = agents_lib.sampling_of(part, "tool")
    if name in engine_check.MODELS:
      engine: engine_lib.Engine = StandIn()
      note = f" (a stand-in answered for {name})"
    elif not engine_works:
      engine = Broken(name)
    else:
      engines = agents_lib.Engines.of(engine_check.alone(part, "tool"), {})
      stack.push_async_callback(engines.aclose)
      engine, sampling = engines.for_role("tool")
    built = registry.build(
      part.tools,
      registry.Resources(
        engine=engine,
        sampling=sampling,
        search_index_dir=str(world_lib.search_index(part, scratch)),
      ),
    )
    toolbox = registry.Toolbox(
      {key: _Contained(tool) for key, tool in built.items()},
      part.tools.call_timeout_s,
    )
    stack.push_async_callback(toolbox.aclose)
    said = await findings.answered(toolbox.check(), f"the tool {label}")
  if user_tools.lacks_example(label):
    return "loaded, not called: @tool(example={...}) names arguments"
  return f"{said}{note}"
