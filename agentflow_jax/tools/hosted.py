"""HostedTool: what every tool of a run promises beyond core's Tool."""

from typing import Protocol

from agentflow_jax.core import tool as tool_lib


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
