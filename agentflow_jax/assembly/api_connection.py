"""HTTP/1.1 for an API whose answers take a while, in OpenAI's error format.

Flow: bytes -> httptools -> `Request`, one after the other -> `handle`, a task
-> `Answer`. A client that leaves cancels the task of its request, and with it
whatever that was waiting for. The retrieval server (tools/retrieval_server.py)
answers inline instead, so it has a connection of its own.
"""

import asyncio
import collections
import dataclasses
import functools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.tools import retrieval_server, serving

MAX_BODY_BYTES = retrieval_server.MAX_BODY_BYTES
_MAX_DISCARDED_BYTES = 64 << 20
_MAX_HEAD_BYTES = 64 << 10
_MAX_PIPELINED = 16
_REASONS = {
  200: "OK",
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  429: "Too Many Requests",
  500: "Internal Server Error",
  503: "Service Unavailable",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
  """What a client asked; `path` has no query string."""

  method: str
  path: str
  authorization: str
  body: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
  """What is sent back.

  Example: `Answer(body=b'{"status": "ok"}')`.
  """

  status: int = 200
  body: bytes
  kind: str = "application/json"
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class ApiError(errors.AgentFlowError):
  """A request that is answered with an error status.

  Example: `raise ApiError(404, "there is no model 'x'", "model_not_found")`.
  """

  def __init__(self, status: int, message: str, code: str | None = None):
    super().__init__(message)
    self.status = status
    self.code = code

  def answer(self) -> Answer:
    kind = "invalid_request_error" if self.status < 500 else "server_error"
    error = {
      "message": str(self),
      "type": kind if self.status != 429 else "rate_limit_error",
      "param": None,
      "code": self.code,
    }
    return Answer(
      status=self.status,
      body=json.dumps({"error": error}).encode(),
      headers={"retry-after": "1"} if self.status in (429, 503) else {},
    )


Handle = Callable[[Request], Awaitable[Answer]]


class Connection(asyncio.Protocol):
  """One client; its requests are answered in order."""

  def __init__(self, handle: Handle, httptools: Any, peers: set["Connection"]):
    self._handle = handle
    self._httptools = httptools
    self._peers = peers
    self._parser = httptools.HttpRequestParser(self)
    self._transport: Any = None
    self._head_bytes = 0
    self._in_head = True
    self._path = b""
    self._authorization = b""
    self._body = bytearray()
    self._body_bytes = 0
    # What is still to be answered, and whether the connection goes on then.
    self._waiting: collections.deque[tuple[Request | ApiError, bool]] = (
      collections.deque()
    )
    self.task: asyncio.Task[Answer] | None = None

  def connection_made(self, transport: asyncio.BaseTransport) -> None:
    self._transport = transport
    self._peers.add(self)

  def connection_lost(self, exc: Exception | None) -> None:
    """Nobody is left to hear the answers."""
    self._peers.discard(self)
    self.end()

  def end(self) -> None:
    """Cancels what is under way and hangs up. Idempotent."""
    self._waiting.clear()
    if self.task is not None:
      self.task.cancel()
    self._transport.abort()

  def data_received(self, data: bytes) -> None:
    try:
      self._parser.feed_data(data)
    except (
      self._httptools.HttpParserError,
      self._httptools.HttpParserUpgrade,
    ):
      self._enqueue(ApiError(400, "this is not an HTTP request"), False)
      return
    self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
    if self._head_bytes > _MAX_HEAD_BYTES:
      self._transport.abort()

  def on_message_begin(self) -> None:
    self._in_head = True
    self._path, self._authorization = b"", b""
    self._body.clear()
    self._body_bytes = 0

  def on_url(self, url: bytes) -> None:
    self._path += url

  def on_header(self, name: bytes, value: bytes) -> None:
    if name.lower() == b"authorization":
      self._authorization = value

  def on_headers_complete(self) -> None:
    self._in_head = False

  def on_body(self, body: bytes) -> None:
    """Keeps what is allowed; reads on, so that the client hears the answer."""
    self._body_bytes += len(body)
    if self._body_bytes <= MAX_BODY_BYTES:
      self._body += body
    elif self._body_bytes > _MAX_DISCARDED_BYTES:
      self._transport.abort()

  def on_message_complete(self) -> None:
    if self._body_bytes > MAX_BODY_BYTES:
      problem = f"the body is longer than {MAX_BODY_BYTES} bytes"
      self._enqueue(ApiError(413, problem), False)
      return
    request = Request(
      method=self._parser.get_method().decode("ascii", "replace"),
      path=self._path.decode("ascii", "replace").partition("?")[0],
      authorization=self._authorization.decode("utf-8", "replace"),
      body=bytes(self._body),
    )
    self._enqueue(request, self._parser.should_keep_alive())

  def _enqueue(self, asked: Request | ApiError, keep: bool) -> None:
    self._waiting.append((asked, keep))
    if len(self._waiting) > _MAX_PIPELINED:
      self._transport.abort()
    elif self.task is None:
      self._next()

  def _next(self) -> None:
    if self._waiting and not self._transport.is_closing():
      asked, keep = self._waiting.popleft()
      self.task = asyncio.get_running_loop().create_task(self._answer(asked))
      self.task.add_done_callback(functools.partial(self._answered, keep))

  async def _answer(self, asked: Request | ApiError) -> Answer:
    try:
      if isinstance(asked, ApiError):
        raise asked
      return await self._handle(asked)
    except ApiError as error:
      return error.answer()

  def _answered(self, keep: bool, task: asyncio.Task[Answer]) -> None:
    self.task = None
    if task.cancelled():
      return
    if (bug := task.exception()) is not None:
      logging.error("a request failed", exc_info=bug)
      self._send(ApiError(500, "the server failed; see its log").answer(), keep)
    else:
      self._send(task.result(), keep)
    self._next()

  def _send(self, answer: Answer, keep: bool) -> None:
    if self._transport.is_closing():
      return
    headers = {
      "content-type": answer.kind,
      "content-length": len(answer.body),
      "connection": "keep-alive" if keep else "close",
      **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines) + "\r\n\r\n"
    self._transport.write(head.encode() + answer.body)
    if not keep:
      self._transport.close()


async def serve(
  handle: Handle, sock: socket.socket, stop: asyncio.Event
) -> None:
  """Serves on an open socket until `stop` is set; then hangs up."""
  httptools = serving.import_httptools()
  peers: set[Connection] = set()
  server = await asyncio.get_running_loop().create_server(
    lambda: Connection(handle, httptools, peers), sock=sock, backlog=1024
  )
  try:
    await stop.wait()
  finally:
    server.close()
    tasks = [peer.task for peer in peers if peer.task is not None]
    for peer in list(peers):
      peer.end()
    await asyncio.gather(*tasks, return_exceptions=True)
