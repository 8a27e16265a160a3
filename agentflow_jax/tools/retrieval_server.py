"""A server for the `/retrieve` API of Search-R1 over a saved index.

Flow: POST /retrieve {"queries": [...], "topk": 3, "return_scores": true} ->
token -> index -> {"result": [[{"document": {"id", "contents"}, "score"}]]},
where `contents` is the title in quotes, a line break, and the text. Without
scores a result is the document itself. GET /health says how many passages.

One asyncio protocol over httptools, with the search inline: a search takes less
time than handing it to a thread would, and several worker processes share the
port and, through the page cache, the index.
"""

import asyncio
import collections
import hmac
import json
from collections.abc import Sequence
from typing import Any

from agentflow_jax.core import errors
from agentflow_jax.tools import bm25_index, serving

MAX_BODY_BYTES = 1 << 20
MAX_QUERIES = 256
MAX_QUERY_CHARS = 2000
MAX_TOP_K = 100
DEFAULT_TOP_K = 3
_MAX_DISCARDED_BYTES = 64 << 20
_CACHED = 4096
_REASONS = {
  200: "OK",
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
}


class Refusal(errors.AgentFlowError):
  """A request that is answered with an error status."""

  def __init__(self, *, status: int, reason: str):
    super().__init__(reason)
    self.status = status
    self.reason = reason


class Retriever:
  """Answers requests; knows nothing of sockets.

  Args:
    index: searched for every query.
    token: what "Authorization: Bearer ..." must carry; "" accepts everybody.

  Example: `Retriever(index, "").retrieve(b'{"queries": ["Laos"]}')`.
  """

  def __init__(self, index: bm25_index.Bm25Index, token: str):
    self._index = index
    self._token = token.encode()
    self._cache: collections.OrderedDict[tuple[str, int, bool], bytes] = (
      collections.OrderedDict()
    )

  def answer(
    self, method: str, path: str, authorization: str, body: bytes
  ) -> bytes:
    """The JSON to send.

    Raises:
      Refusal: with the status to send instead.
    """
    path = path.partition("?")[0]
    if path == "/health":
      return json.dumps({"passages": len(self._index)}).encode()
    if path != "/retrieve":
      raise Refusal(status=404, reason="there are /retrieve and /health")
    if method != "POST":
      raise Refusal(status=405, reason="POST it")
    expected = b"Bearer " + self._token
    given = authorization.encode("utf-8", "replace")
    if self._token and not hmac.compare_digest(given, expected):
      raise Refusal(status=401, reason="send Authorization: Bearer TOKEN")
    return self.retrieve(body)

  def retrieve(self, body: bytes) -> bytes:
    """Reads a request's body and searches. Raises Refusal."""
    queries, top_k, with_scores = _request(body)
    results = [self._result(query, top_k, with_scores) for query in queries]
    return b'{"result": [' + b", ".join(results) + b"]}"

  def _result(self, query: str, top_k: int, with_scores: bool) -> bytes:
    key = (query, top_k, with_scores)
    found = self._cache.get(key)
    if found is not None:
      self._cache.move_to_end(key)
      return found
    entries: list[bytes] = []
    for index, score in self._index.find(query, top_k):
      entry = _document(self._index.line(index))
      if with_scores:
        entry = b'{"document": %b, "score": %r}' % (entry, score)
      entries.append(entry)
    found = self._cache[key] = b"[" + b", ".join(entries) + b"]"
    if len(self._cache) > _CACHED:
      self._cache.popitem(last=False)
    return found


def _document(line: bytes) -> bytes:
  """{"id", "contents"} from a passage's {"id", "title", "text"}, both JSON.

  Cut and joined: to decode and encode them takes as long as to search. Quotes
  within a text are escaped, so what is cut at occurs once.
  """
  start, _, rest = line.partition(b'", "title": "')
  title, _, text = rest.partition(b'", "text": "')
  return b'%b", "contents": "\\"%b\\"\\n%b' % (start, title, text.rstrip())


def _request(body: bytes) -> tuple[list[str], int, bool]:
  try:
    request = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise Refusal(status=400, reason="the body is not JSON") from error
  if not isinstance(request, dict):
    raise Refusal(status=400, reason="the body must be an object")
  queries = request.get("queries")
  top_k = request.get("topk")
  top_k = DEFAULT_TOP_K if top_k is None else top_k
  if (
    not isinstance(queries, list)
    or not 1 <= len(queries) <= MAX_QUERIES
    or not all(isinstance(query, str) for query in queries)
  ):
    raise Refusal(
      status=400, reason=f"queries must be 1 to {MAX_QUERIES} strings"
    )
  if type(top_k) is not int or not 1 <= top_k <= MAX_TOP_K:
    raise Refusal(status=400, reason=f"topk must be 1 to {MAX_TOP_K}")
  cut = [query[:MAX_QUERY_CHARS] for query in queries]
  return cut, top_k, request.get("return_scores") is True


class Connection(asyncio.Protocol):
  """One client: parses requests, sends answers, keeps the connection open."""

  def __init__(self, retriever: Retriever, httptools: Any):
    self._retriever = retriever
    self._httptools = httptools
    self._parser = httptools.HttpRequestParser(self)
    self._transport: Any = None
    self._path = b""
    self._authorization = b""
    self._body = bytearray()
    self._body_bytes = 0

  def connection_made(self, transport: asyncio.BaseTransport) -> None:
    self._transport = transport

  def data_received(self, data: bytes) -> None:
    try:
      self._parser.feed_data(data)
    except (
      self._httptools.HttpParserError,
      self._httptools.HttpParserUpgrade,
    ):
      self._send(400, b'{"error": "this is not an HTTP request"}', False)

  def on_message_begin(self) -> None:
    self._path, self._authorization = b"", b""
    self._body.clear()
    self._body_bytes = 0

  def on_url(self, url: bytes) -> None:
    self._path += url

  def on_header(self, name: bytes, value: bytes) -> None:
    if name.lower() == b"authorization":
      self._authorization = value

  def on_body(self, body: bytes) -> None:
    """Keeps what is allowed; reads on, so that the client hears the answer."""
    self._body_bytes += len(body)
    if self._body_bytes <= MAX_BODY_BYTES:
      self._body += body
    elif self._body_bytes > _MAX_DISCARDED_BYTES:
      self._transport.abort()

  def on_message_complete(self) -> None:
    if self._transport.is_closing():
      return
    if self._body_bytes > MAX_BODY_BYTES:
      self._send(413, b'{"error": "the body is too long"}', False)
      return
    keep = self._parser.should_keep_alive()
    try:
      answer = self._retriever.answer(
        self._parser.get_method().decode("ascii", "replace"),
        self._path.decode("ascii", "replace"),
        self._authorization.decode("utf-8", "replace"),
        bytes(self._body),
      )
    except Refusal as refusal:
      text = json.dumps({"error": refusal.reason}).encode()
      self._send(refusal.status, text, keep)
    else:
      self._send(200, answer, keep)

  def _send(self, status: int, body: bytes, keep: bool) -> None:
    if self._transport.is_closing():
      return
    head = (
      f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
      "content-type: application/json\r\n"
      f"content-length: {len(body)}\r\n"
      f"connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    self._transport.write(head.encode() + body)
    if not keep:
      self._transport.close()


async def serve(
  retriever: Retriever, sockets: Sequence[Any], stop: asyncio.Event
) -> None:
  """Serves on open sockets until `stop` is set."""
  httptools = serving.import_httptools()
  loop = asyncio.get_running_loop()
  servers = [
    await loop.create_server(
      lambda: Connection(retriever, httptools), sock=sock, backlog=1024
    )
    for sock in sockets
  ]
  try:
    await stop.wait()
  finally:
    for server in servers:
      server.close()
