"""Tools of MCP servers: each appears as a tool of its own.

Flow: `connect("name=command ...")` or `connect("name=https://...")` -> a thread
with an event loop that holds the session -> one `McpTool` per tool the server
lists -> calls travel to that loop and back. The session lives in one task of
one loop, as the SDK wants it, so the tools work from any event loop.

A server is a program or service of the user's choice and is trusted as such;
what it returns is not: it is text, bounded before it is read
(tools/mcp_transport.py), cut and neutralised like any tool output. A server
process gets no environment but PATH and HOME. A service gets what is in
MCP_NAME_TOKEN (NAME in capitals), if anything, as a bearer token.

Needs the extra: pip install "agentflow_jax[mcp]".
"""

import asyncio
import concurrent.futures
import contextlib
import os
import re
import shlex
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib

_CONNECT_S = 60.0
_CLOSE_S = 10.0
_MAX_DESCRIPTION_CHARS = 2000
# What a server calls read-only and idempotent may be asked once for many. That
# says nothing of how long the answer holds (a clock is both), so: as long as
# the members of a group take to ask the same, and no longer.
_CACHE_S = 60.0
_NAME = re.compile(r"[^A-Za-z0-9_]+")


class _TooLongError(errors.ToolHostError):
  """A server answered, with more than is kept."""


class McpServer:
  """A connection to one server.

  Args:
    entry: "name=command with arguments", or "name=http(s)://address".

  Example: `McpServer("clock=python clock_server.py").tools()`.

  Raises:
    ConfigError: the entry is malformed.
    UserError: the extra is missing, or the server does not answer.
  """

  def __init__(self, entry: str):
    self.name, _, self._where = (part.strip() for part in entry.partition("="))
    if not self.name or not self._where:
      raise errors.ConfigError(
        f"tools.mcp_servers: {entry!r} is not NAME=COMMAND or NAME=URL"
      )
    self._mcp, self._transports = _import_mcp()
    self._loop = asyncio.new_event_loop()
    self._ready: concurrent.futures.Future = concurrent.futures.Future()
    self._closing = asyncio.Event()
    self._session: Any = None
    self._thread = threading.Thread(
      target=self._serve, name=f"mcp-{self.name}", daemon=True
    )
    self._thread.start()
    try:
      self._listed = self._ready.result(_CONNECT_S)
    except concurrent.futures.TimeoutError as error:
      self._end()
      raise errors.UserError(
        f"the MCP server {self.name!r} did not answer in {_CONNECT_S:g} s"
      ) from error

  def tools(self) -> list["McpTool"]:
    """One tool per tool the server listed when it was connected."""
    return [McpTool(self, listed) for listed in self._listed]

  async def call(self, make: Any) -> Any:
    """Runs `make(session)` on the session's loop.

    Raises:
      ToolHostError: the connection is gone, or the answer is too long.
    """
    if not self._thread.is_alive() or self._session is None:
      raise errors.ToolHostError(f"the MCP server {self.name!r} is gone")
    future = asyncio.run_coroutine_threadsafe(
      self._guarded(make(self._session)), self._loop
    )
    return await asyncio.wrap_future(future)

  async def _guarded(self, coroutine: Coroutine) -> Any:
    try:
      return await coroutine
    except (self._mcp.MCPError, OSError, RuntimeError) as error:
      kind = errors.ToolHostError
      if self._transports.is_too_long(error):
        kind = _TooLongError
      raise kind(f"the MCP server {self.name!r} failed: {error}") from error

  async def aclose(self) -> None:
    """Ends the session and the server's process. Idempotent."""
    await asyncio.to_thread(self._end)

  def _end(self) -> None:
    if self._thread.is_alive():
      with contextlib.suppress(RuntimeError):  # it ended between the lines
        self._loop.call_soon_threadsafe(self._closing.set)
      self._thread.join(_CLOSE_S)

  def _serve(self) -> None:
    try:
      self._loop.run_until_complete(self._hold())
    finally:
      self._session = None
      self._loop.close()

  async def _hold(self) -> None:
    """Holds the session open in one task until it is to be closed."""
    try:
      async with contextlib.AsyncExitStack() as stack:
        streams = await stack.enter_async_context(self._transport())
        session = await stack.enter_async_context(
          self._mcp.ClientSession(streams[0], streams[1])
        )
        await session.initialize()
        listed = (await session.list_tools()).tools
        self._session = session
        self._ready.set_result(listed)
        await self._closing.wait()
        self._session = None
    # The SDK reports a server that is missing, refuses or breaks off as almost
    # anything, inside exception groups; all of it means: not connected.
    except Exception as error:  # noqa: BLE001
      if not self._ready.done():
        self._ready.set_exception(
          errors.UserError(
            f"the MCP server {self.name!r} can not be used: {_innermost(error)}"
          )
        )

  def _transport(self) -> Any:
    if self._where.startswith(("http://", "https://")):
      token = os.environ.get(token_variable(self.name), "")
      return self._transports.service(self._where, token)
    command, *arguments = shlex.split(self._where)
    return self._transports.program(
      command,
      arguments,
      {
        name: os.environ[name]
        for name in ("PATH", "HOME")
        if name in os.environ
      },
    )


def token_variable(server: str) -> str:
  """Where the key of a server behind HTTP is: MCP_CLOCK_TOKEN for "clock"."""
  return f"MCP_{_NAME.sub('_', server).upper()}_TOKEN"


class McpTool:
  """One tool of a server as a hosted tool."""

  def __init__(self, server: McpServer, listed: Any):
    self._server = server
    self._name = listed.name
    self.cache_s = _CACHE_S if _repeatable(listed) else 0.0
    schema = dict(getattr(listed, "input_schema", None) or {})
    schema.setdefault("type", "object")
    schema.setdefault("properties", {})
    short = _NAME.sub("_", listed.name).strip("_")
    description = " ".join((listed.description or listed.name).split())
    self._spec = tool_lib.ToolSpec(
      name=f"{server.name}_{short}_Tool",
      aliases=(f"{server.name}_{short}",),
      description=description[:_MAX_DESCRIPTION_CHARS],
      inputs=schema,
      output="str: what the server answers",
      limitations=(f"It runs on the MCP server {server.name}.",),
    )

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return self._spec

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Calls the tool; an error the server reports is EXECUTION.

    An answer that is too long is LIMIT.

    Raises:
      ToolHostError: the server failed or is gone (retryable).
    """
    del context
    started_s = time.perf_counter()
    try:
      answer = await self._server.call(
        lambda session: session.call_tool(self._name, dict(arguments))
      )
    except _TooLongError as error:
      # What was asked for is too much; asking again would bring it again.
      return tool_lib.ToolResult(
        output=str(error), error=tool_lib.ToolErrorKind.LIMIT
      )
    text = "\n".join(
      str(part.text) if getattr(part, "text", None) else f"[{part.type}]"
      for part in answer.content
    )
    failed = bool(getattr(answer, "is_error", False))
    kind = tool_lib.ToolErrorKind
    return tool_lib.ToolResult(
      output=text or "no output",
      error=kind.EXECUTION if failed else None if text else kind.NO_RESULT,
      duration_s=time.perf_counter() - started_s,
    )

  async def check(self) -> None:
    """Lists the server's tools again.

    Raises:
      ToolHostError: the server is gone, or no longer has this tool.
    """
    answer = await self._server.call(lambda session: session.list_tools())
    if self._name not in {listed.name for listed in answer.tools}:
      raise errors.ToolHostError(
        f"the MCP server {self._server.name!r} has no tool {self._name!r}"
      )

  async def aclose(self) -> None:
    """Closes the server; its other tools end with it. Idempotent."""
    await self._server.aclose()


def _repeatable(listed: Any) -> bool:
  """Whether the server says that a second call would change nothing.

  Both hints, because servers that fill in one by habit are common, and both
  default to False.
  """
  hints = getattr(listed, "annotations", None)
  return (
    getattr(hints, "read_only_hint", None) is True
    and getattr(hints, "idempotent_hint", None) is True
  )


def connect(entry: str) -> list[McpTool]:
  """The tools of one server; raises as `McpServer`."""
  return McpServer(entry).tools()


def _innermost(error: BaseException) -> str:
  while isinstance(error, BaseExceptionGroup):
    error = error.exceptions[0]
  return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _import_mcp() -> tuple[Any, Any]:
  """The SDK, and our transports for it."""
  try:
    import mcp

    from agentflow_jax.tools import mcp_transport
  except ImportError as error:
    raise errors.UserError(
      "MCP tools need the extra: pip install 'agentflow_jax[mcp]', or empty "
      "tools.mcp_servers"
    ) from error
  return mcp, mcp_transport
