"""Fetches over HTTP within limits: bytes, seconds, redirects, addresses.

Flow: URL -> `Guard.check` -> one connection to a checked address -> headers ->
body, decompressed piece by piece up to `max_bytes` -> `Response`. A redirect
starts over. Nothing of a request is kept: no cookies, no proxies from the
environment, no connection (so no file descriptor outlives a call).

Two users: tools that fetch what a model asked for use a `Guard`; clients of a
service the user has configured (a retriever on loopback, an API) use
`Fetcher(None)`, which connects to whatever the config says.
"""

import asyncio
import codecs
import dataclasses
import json
import re
import ssl
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import httpcore2

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors
from agentflow_jax.tools import url_guard

MAX_BYTES = 5_000_000
TIMEOUT_S = 10.0
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
_AGENT = "agentflow_jax (research agent; one page at a time)"
_PIECE_BYTES = 1 << 16
# What pages are written in. Python knows more: punycode takes quadratic time,
# unicode_escape makes texts that can not be encoded.
_CHARSETS = re.compile(
  r"ascii|utf-(8|16|32)([-_](le|be|sig))?|iso8859-\d+|cp\d+|mac-.*|koi8-[ru]"
  r"|shift_jis|euc_(jp|kr)|iso2022_(jp|kr)|gb2312|gbk|gb18030|hz|big5(hkscs)?"
  r"|tis-620"
)


class FetchError(errors.AgentFlowError):
  """The other side did not deliver; the message says what happened.

  Not an InfrastructureError: whether a page that a model chose is down counts
  against anybody is for the tool to say.
  """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Response:
  """What came back, decompressed; `cut` if it was longer than the limit.

  Example: `Response(url="https://example.org/", status=200, headers={...},
  body=b"<html>...", cut=False)`.
  """

  url: str  # after redirects
  status: int
  headers: Mapping[str, str]  # names in lower case
  # asyncio shows a task with its result: a body of zeros would be four as long.
  body: bytes = dataclasses.field(repr=False)
  cut: bool

  @property
  def content_type(self) -> str:
    """Without parameters, in lower case."""
    return (
      self.headers.get("content-type", "").partition(";")[0].strip().lower()
    )

  @property
  def text(self) -> str:
    """The body in the charset it names, undecodable bytes replaced."""
    _, _, charset = self.headers.get("content-type", "").partition("charset=")
    charset = charset.partition(";")[0].strip("\"' \t") or "utf-8"
    try:
      known = codecs.lookup(charset).name
    except (LookupError, UnicodeError):
      known = ""
    if not _CHARSETS.fullmatch(known):
      known = "utf-8"
    return self.body.decode(known, "replace")

  def json(self) -> Any:
    """The body as JSON.

    Raises:
      FetchError: it is not JSON, is nested too deeply, or was cut.
    """
    try:
      if self.cut:
        raise ValueError("it is too long")
      return json.loads(self.body)
    except (ValueError, RecursionError) as error:
      raise FetchError(f"the answer is not JSON: {error}") from error


class Fetcher:
  """Makes requests; usable from any event loop, nothing to close.

  Args:
    guard: what a URL may reach; None if the user chose all URLs.
    max_bytes: of a decompressed body; the rest is not read.
    timeout_s: for the whole request, redirects included.

  Example: `(await Fetcher(url_guard.Guard()).get("https://example.org")).text`.
  """

  def __init__(
    self,
    guard: url_guard.Guard | None,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
  ):
    self._guard = guard
    self._max_bytes = max_bytes
    self._timeout_s = timeout_s
    self._tls: ssl.SSLContext | None = None

  async def get(
    self,
    url: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> Response:
    """GETs `url`, whatever the status of the answer.

    Redirects are followed only with a guard: a configured service has no
    reason to send its client (and its key) elsewhere.

    Raises:
      RefusedUrlError: the URL, or one it redirects to, may not be fetched.
      FetchError: nothing (complete) came back.
    """
    if query:
      url += ("&" if "?" in url else "?") + urllib.parse.urlencode(query)
    return await self._limited("GET", url, headers or {}, None, deadline)

  async def post_json(
    self,
    url: str,
    payload: Any,
    *,
    headers: Mapping[str, str] | None = None,
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> Response:
    """POSTs JSON; redirects are not followed. Raises as `get`."""
    headers = {"content-type": "application/json", **(headers or {})}
    content = json.dumps(payload).encode("utf-8")
    return await self._limited("POST", url, headers, content, deadline)

  async def _limited(
    self,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
    deadline: deadline_lib.Deadline,
  ) -> Response:
    try:
      async with asyncio.timeout(
        deadline.sooner(self._timeout_s).remaining_s()
      ):
        return await self._follow(method, url, headers, content)
    except TimeoutError as error:
      raise FetchError(f"no answer within {self._timeout_s:g} s") from error
    except (OSError, ssl.SSLError) as error:
      raise FetchError(_described(error)) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
      raise FetchError(_described(error)) from error

  async def _follow(
    self,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
  ) -> Response:
    for _ in range(_MAX_REDIRECTS + 1):
      response = await self._once(method, self._target(url), headers, content)
      location = response.headers.get("location", "")
      if (
        self._guard is None
        or method != "GET"
        or response.status not in _REDIRECTS
        or not location
      ):
        return response
      url = urllib.parse.urljoin(response.url, location)
    raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

  def _target(self, url: str) -> url_guard.Target:
    if self._guard is None:
      return url_guard.parse(url)
    return self._guard.check(url)

  async def _once(
    self,
    method: str,
    target: url_guard.Target,
    headers: Mapping[str, str],
    content: bytes | None,
  ) -> Response:
    if target.scheme == "https" and self._tls is None:
      self._tls = httpcore2.default_ssl_context()
    async with (
      httpcore2.AsyncConnectionPool(
        ssl_context=self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        network_backend=_Backend(self._guard),
      ) as pool,
      pool.stream(
        method,
        # From the checked parts, so that no second parser sees the URL.
        httpcore2.URL(
          scheme=target.scheme.encode(),
          host=target.host.encode(),
          port=target.port,
          target=target.path.encode(),
        ),
        headers={
          "host": target.authority,
          "user-agent": _AGENT,
          "accept-encoding": "gzip, deflate",
          "connection": "close",
          **headers,
        },
        content=content,
      ) as answer,
    ):
      found = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in answer.headers
      }
      if self._guard is not None and answer.status in _REDIRECTS:
        body, cut = b"", False
      else:
        body, cut = await self._read(
          answer.aiter_stream(), found.get("content-encoding", "")
        )
    return Response(
      url=target.url, status=answer.status, headers=found, body=body, cut=cut
    )

  async def _read(
    self, stream: AsyncIterator[bytes], encoding: str
  ) -> tuple[bytes, bool]:
    body = bytearray()
    decode = _decoder(encoding.strip().lower())
    async for data in stream:
      for piece in decode(data):
        body += piece
        if len(body) > self._max_bytes:
          return bytes(body[: self._max_bytes]), True
    return bytes(body), False


def _decoder(encoding: str):
  """bytes -> pieces of at most _PIECE_BYTES, so that no bomb goes off."""
  if encoding in ("", "identity"):
    return lambda data: [data]
  if encoding not in ("gzip", "x-gzip", "deflate"):
    raise FetchError(f"the answer has an encoding nobody asked for: {encoding}")
  inflate = zlib.decompressobj(wbits=47)  # gzip or zlib, by its header

  def pieces(data: bytes) -> Iterable[bytes]:
    try:
      while data and not inflate.eof:
        yield inflate.decompress(data, _PIECE_BYTES)
        data = inflate.unconsumed_tail
    except zlib.error as error:
      raise FetchError(f"the answer is not {encoding}: {error}") from error

  return pieces


class _Backend(httpcore2.AsyncNetworkBackend):
  """Connects to addresses that were looked up, and checked, just now.

  Without a guard too: the library's own look-up can not be cut off.
  """

  def __init__(self, guard: url_guard.Guard | None):
    self._guard = guard
    self._backend: Any = httpcore2.AnyIOBackend()

  async def connect_tcp(
    self, host: str, port: int, *args: Any, **kwargs: Any
  ) -> httpcore2.AsyncNetworkStream:
    if self._guard is None:
      addresses = await url_guard.resolve(host, port)
    else:
      addresses = await self._guard.addresses(host, port)
    failure: Exception | None = None
    for address in addresses:
      try:
        return await self._backend.connect_tcp(address, port, *args, **kwargs)
      except httpcore2.NetworkError as error:
        failure = error
    raise failure or FetchError("the host has no address")

  async def connect_unix_socket(
    self, path: str, *args: Any, **kwargs: Any
  ) -> httpcore2.AsyncNetworkStream:
    raise url_guard.RefusedUrlError("a URL can not name a unix socket")

  async def sleep(self, seconds: float) -> None:
    await asyncio.sleep(seconds)


def _described(error: Exception) -> str:
  text = " ".join(str(error).split())[:200]
  return f"{type(error).__name__}: {text}".removesuffix(": ")
