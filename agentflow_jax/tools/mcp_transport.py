"""What an MCP server sends, in pieces of bounded size.

Flow: a program's stdout -> lines -> messages of the SDK; the body of a
service's response -> the SDK. One answer may be MAX_BYTES. The SDK gathers a
line of a program and a JSON body whole, however long they are, so both are
bounded here, before it sees them; events of a stream it bounds itself, by the
number it is given.

An answer that is longer is skipped, not kept, and fails its own call alone: the
session goes on. `is_too_long` tells such a failure from a broken server.

Imported only where the extra `mcp` is installed.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx2
import mcp_types
from absl import logging
from mcp.client import streamable_http
from mcp.shared import _httpx_utils  # the SDK's own limits, and our header
from mcp.shared import message as message_lib

# What the SDK allows an event by itself. An agent is shown a hundredth of that;
# and JSON of nothing but brackets takes a hundred times its length in objects.
MAX_BYTES = 1 << 20
_TOO_LONG = f"exceeded the {MAX_BYTES} byte limit"
_READ_BYTES = 1 << 16
_EDGE_BYTES = 256  # what is kept of both ends of a line that is too long
_END_S = 2.0  # for a program to end when asked, and again when told
# An answer names its request first or last; in between it quotes anything.
_ID = rb'"id"\s*:\s*(\d+)\s*'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_FIRST = re.compile(
  rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _ID + rb',\s*"(?:result|error)"'
)
_LAST = re.compile(_ID + rb"(?:,\s*" + _VERSION + rb")?\}\s*$")


def is_too_long(error: BaseException) -> bool:
  """Whether a call failed because its answer was too long."""
  return _TOO_LONG in str(error)


class TooLongError(httpx2.StreamError):
  """A body is too long; as a StreamError it fails one request of the SDK."""


class Lines:
  """Cuts what comes into lines and keeps only the ends of those too long.

  Example: `list(Lines(9).feed(b"one\\ntwo"))` is `[(b"one", False)]`.
  """

  def __init__(self, max_bytes: int = MAX_BYTES):
    self._max_bytes = max_bytes
    self._line = bytearray()
    self._end: bytes | None = None  # of a line that is too long

  def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Every line that is complete now, and whether its middle is missing."""
    *complete, rest = data.split(b"\n")
    for piece in complete:
      self._add(piece)
      yield bytes(self._line) + (self._end or b""), self._end is not None
      self._line, self._end = bytearray(), None
    self._add(rest)

  def _add(self, piece: bytes) -> None:
    if self._end is not None:
      self._end = (self._end + piece)[-_EDGE_BYTES:]
      return
    self._line += piece
    if len(self._line) > self._max_bytes:
      self._end = bytes(self._line[-_EDGE_BYTES:])
      self._line = self._line[:_EDGE_BYTES]


class _Program:
  """A server process and what it and the session say to each other."""

  def __init__(self, process: asyncio.subprocess.Process):
    self._process = process
    self._asked: set[Any] = set()  # requests without an answer so far

  async def read(self, send: Any) -> None:
    """Hands the session every message, until the program closes its stdout."""
    assert self._process.stdout is not None
    lines = Lines()
    async with send:
      while data := await self._process.stdout.read(_READ_BYTES):
        for line, cut in lines.feed(data):
          for message in self._failures(line) if cut else self._said(line):
            await send.send(message)

  async def write(self, receive: Any) -> None:
    """Sends the program every message of the session."""
    assert self._process.stdin is not None
    async with receive:
      async for item in receive:
        if isinstance(item.message, mcp_types.JSONRPCRequest):
          self._asked.add(item.message.id)
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        self._process.stdin.write(text.encode("utf-8", "replace") + b"\n")
        with contextlib.suppress(ConnectionError):  # `read` sees its end too
          await self._process.stdin.drain()

  def _said(
    self, line: bytes
  ) -> Iterator[message_lib.SessionMessage | Exception]:
    """A message; what is none is handed on as an error, as the SDK does."""
    try:
      said = mcp_types.jsonrpc_message_adapter.validate_json(
        line, by_name=False
      )
    except ValueError as error:
      yield error
      return
    if isinstance(said, (mcp_types.JSONRPCResponse, mcp_types.JSONRPCError)):
      self._asked.discard(said.id)
    yield message_lib.SessionMessage(said)

  def _failures(self, ends: bytes) -> Iterator[message_lib.SessionMessage]:
    """The call that a line answers has failed; all have if none is named."""
    logging.warning("an answer of an MCP server %s", _TOO_LONG)
    found = _FIRST.match(ends) or _LAST.search(ends)
    named = {json.loads(found[1])} & self._asked if found else set()
    for number in named or set(self._asked):
      self._asked.discard(number)
      error = mcp_types.ErrorData(
        code=mcp_types.INTERNAL_ERROR, message=f"The answer {_TOO_LONG}."
      )
      yield message_lib.SessionMessage(
        mcp_types.JSONRPCError(jsonrpc="2.0", id=number, error=error)
      )

  async def end(self) -> None:
    """Asks the program to end by closing its stdin, then tells its group."""
    if self._process.stdin is not None:
      self._process.stdin.close()
    for name in (None, signal.SIGTERM, signal.SIGKILL):
      if name is not None:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(self._process.pid, name)
      with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
          # One that still writes would not come to its end.
          while await self._process.stdout.read(_READ_BYTES):  # type: ignore
            pass
          await self._process.wait()
          return


@contextlib.asynccontextmanager
async def program(
  command: str, arguments: list[str], environment: dict[str, str]
) -> AsyncIterator[tuple[Any, Any]]:
  """Starts a server and gives the two streams that a session wants.

  As the SDK's `stdio_client`, but for the length of a line. The program leads
  a process group, which ends with the block.

  Args:
    command: the program.
    arguments: its arguments.
    environment: all of its environment.

  Raises:
    OSError: it does not start.
  """
  process = await asyncio.create_subprocess_exec(
    command,
    *arguments,
    stdin=asyncio.subprocess.PIPE,
    stdout=asyncio.subprocess.PIPE,
    env=environment,
    limit=_READ_BYTES,
    start_new_session=True,
  )
  server = _Program(process)
  send, incoming = anyio.create_memory_object_stream[Any](0)
  outgoing, receive = anyio.create_memory_object_stream[Any](0)
  tasks = [
    asyncio.create_task(server.read(send)),
    asyncio.create_task(server.write(receive)),
  ]
  try:
    yield incoming, outgoing
  finally:
    for task in tasks:
      task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for stream in (send, incoming, outgoing, receive):
      stream.close()
    await server.end()


class _Bounded(httpx2.AsyncByteStream):
  """A response's body up to MAX_BYTES."""

  def __init__(self, stream: httpx2.AsyncByteStream, packed: str):
    self._stream = stream
    self._packed = packed  # how, or ""

  async def __aiter__(self) -> AsyncIterator[bytes]:
    if self._packed:  # a few bytes may unpack to any length
      raise TooLongError(f"the answer is packed ({self._packed})")
    left = MAX_BYTES
    async for piece in self._stream:
      left -= len(piece)
      if left < 0:
        raise TooLongError(f"the answer {_TOO_LONG}")
      yield piece

  async def aclose(self) -> None:
    await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
  """A hook that every response passes before its body is read."""
  kind = response.headers.get("content-type", "").strip().lower()
  packed = response.headers.get("content-encoding", "").strip().lower()
  packed = "" if packed == "identity" else packed
  # A stream of events may go on for hours; the SDK bounds each event.
  if packed or not kind.startswith("text/event-stream"):
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, packed)


@contextlib.asynccontextmanager
async def service(url: str, token: str) -> AsyncIterator[tuple[Any, Any]]:
  """Connects to a server behind HTTP, as `program`.

  Args:
    url: where it listens.
    token: sent as a bearer token; "" is none.
  """
  headers = {"Accept-Encoding": "identity"}
  if token:
    headers["Authorization"] = f"Bearer {token}"
  async with _httpx_utils.create_mcp_http_client(headers=headers) as client:
    client.event_hooks = {"response": [_bound]}
    async with streamable_http.streamable_http_client(
      url, http_client=client, max_sse_event_size=MAX_BYTES
    ) as streams:
      yield streams[0], streams[1]
