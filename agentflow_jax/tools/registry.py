"""The tools by their config names, and the set of them a run uses.

A new tool is a module with a class like the ones here, and one row in
`BUILDERS`. `build` turns `config.tools` into a `Toolbox`.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import (
  base_generator,
  bubblewrap_sandbox,
  monty_sandbox,
  python_coder,
  sandbox,
  wikipedia_search,
)

_SANDBOXES: Mapping[str, Callable[[sandbox.Limits], sandbox.Sandbox]] = {
  "monty": monty_sandbox.MontySandbox,
  "bubblewrap": bubblewrap_sandbox.BubblewrapSandbox,
}


class HostedTool(tool_lib.Tool, Protocol):
  """A tool with something behind it that can be missing and must be ended."""

  async def check(self) -> None:
    """Uses the tool for real, in a small way.

    Raises:
      UserError: something is missing that the user can put in place.
      InfrastructureError: something does not work now.
    """
    ...

  async def aclose(self) -> None:
    """Ends processes and connections. Idempotent."""
    ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
  """What tools are built from, besides their own config.

  `engine` and `sampling` answer for the tools that ask an engine.
  `search_index_dir` is searched where the config names no index.
  """

  engine: engine_lib.Engine
  sampling: engine_lib.SamplingParams
  search_index_dir: str


class Toolbox(Mapping[str, HostedTool]):
  """The tools of a run by their spec names, in the order of the config."""

  def __init__(self, tools: Mapping[str, HostedTool]):
    self._tools = dict(tools)

  def __getitem__(self, name: str) -> HostedTool:
    return self._tools[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._tools)

  def __len__(self) -> int:
    return len(self._tools)

  async def check(self) -> None:
    """Checks the tools one after the other; the first failure is raised."""
    for tool in self._tools.values():
      await tool.check()

  async def aclose(self) -> None:
    """Closes every tool. Idempotent."""
    await asyncio.gather(*(tool.aclose() for tool in self._tools.values()))


def _base_generator(
  config: config_lib.ToolsConfig, resources: Resources
) -> HostedTool:
  del config
  return base_generator.BaseGenerator(resources.engine, resources.sampling)


def _python_coder(
  config: config_lib.ToolsConfig, resources: Resources
) -> HostedTool:
  return python_coder.PythonCoder(
    resources.engine,
    resources.sampling,
    _SANDBOXES[config.python_sandbox](
      sandbox.Limits(
        timeout_s=config.python_timeout_s, memory_mb=config.python_memory_mb
      )
    ),
    max_output_chars=config.python_max_output_chars,
  )


def _wikipedia_search(
  config: config_lib.ToolsConfig, resources: Resources
) -> HostedTool:
  return wikipedia_search.WikipediaSearch(
    config.search_index_dir or resources.search_index_dir,
    top_k=config.search_top_k,
  )


BUILDERS: Mapping[
  str, Callable[[config_lib.ToolsConfig, Resources], HostedTool]
] = {
  "base_generator": _base_generator,
  "python_coder": _python_coder,
  "wikipedia_search": _wikipedia_search,
}


def build(config: config_lib.ToolsConfig, resources: Resources) -> Toolbox:
  """Builds the enabled tools.

  Raises:
    ConfigError: a name is unknown or occurs twice.
    UserError: something a tool needs is missing (index, sandbox).
  """
  names = list(config.enabled)
  for name in names:
    if name not in BUILDERS:
      raise errors.ConfigError(
        f"tools.enabled: there is no tool {name!r}; "
        f"known are {', '.join(sorted(BUILDERS))}"
      )
    if names.count(name) > 1:
      raise errors.ConfigError(f"tools.enabled names {name!r} twice")
  tools = [BUILDERS[name](config, resources) for name in names]
  return Toolbox({tool.spec.name: tool for tool in tools})
