"""Which addresses a URL chosen by a model may reach: the public web only.

Flow: `Guard.check(url)` reads the URL with the only parser we use and refuses
every odd way to write a host; `Guard.addresses(host, port)` resolves it once
and refuses it if any of its addresses is not public. The connection then goes
to the address that was checked (tools/fetching.py), so a name that resolves
differently the second time changes nothing, and a redirect is a new URL that
is checked again.

`allowed` names host:port pairs the user wants reachable though they are not
public (an intranet wiki, a test server). It is empty by default.
"""

import dataclasses
import ipaddress
import re
import socket
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence

from agentflow_jax.core import errors
from agentflow_jax.tools import call_threads

_PORTS = {"http": 80, "https": 443}
_OPEN_PORTS = frozenset([80, 443, 8080, 8443])
_MAX_URL_CHARS = 2048
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What Python's tables call global and is not the public web all the same.
_NOT_PUBLIC = tuple(
  map(
    ipaddress.ip_network,
    (
      "168.63.129.16/32",  # Azure's WireServer: a cloud host's metadata
      "192.88.99.0/24",  # relays of 6to4, into whatever network is near
      "3fff::/20",  # for documentation; newer than Python 3.11
    ),
  )
)
_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa", "localdomain")

# The system's look-up can not be cancelled, so none runs in asyncio's own pool.
_LOOKUPS = call_threads.CallThreads("name_lookup")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedUrlError(errors.AgentFlowError):
  """A URL may not be fetched; whoever chose it is told why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
  """A URL in the parts a connection needs.

  Example: `Guard().check("http://Example.org/a?b=c")` is
  `Target(scheme="http", host="example.org", port=80, path="/a?b=c")`.
  """

  scheme: str
  host: str  # lower case, in ASCII, an IPv6 address without brackets
  port: int
  path: str  # with the query, percent-encoded

  @property
  def authority(self) -> str:
    """The Host header."""
    host = f"[{self.host}]" if ":" in self.host else self.host
    standard = self.port == _PORTS[self.scheme]
    return host if standard else f"{host}:{self.port}"

  @property
  def url(self) -> str:
    return f"{self.scheme}://{self.authority}{self.path}"


async def resolve(host: str, port: int) -> Sequence[str]:
  """All addresses of a name, from the system's resolver.

  Raises:
    OSError: the name does not resolve.
    ToolHostError: too many look-ups hang.
  """
  found = await _LOOKUPS.run(
    socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
  )
  return [str(address[0]) for *_, address in found]


class Guard:
  """Checks URLs and addresses.

  Args:
    allowed: "host:port" pairs that may be reached whatever their address.
    resolver: name and port to addresses; the system's by default.

  Raises:
    ConfigError: an entry of `allowed` is not "host:port".
  """

  def __init__(self, allowed: Sequence[str] = (), resolver: Resolve = resolve):
    for entry in allowed:
      host, _, port = entry.rpartition(":")
      if not host or not port.isdecimal():
        raise errors.ConfigError(
          f"tools.web_allowed_hosts: {entry!r} is not HOST:PORT"
        )
    self._allowed = frozenset(entry.lower() for entry in allowed)
    self._resolver = resolver

  def check(self, url: str) -> Target:
    """Reads a URL.

    Raises:
      RefusedUrlError: it is not plain http(s), hides its host, or names a
        host or port that is not for models.
    """
    target = parse(url)
    if not self._is_allowed(target.host, target.port):
      if target.port not in _OPEN_PORTS:
        raise RefusedUrlError(f"port {target.port} is not open to this tool")
      if target.host.rpartition(".")[2] in _LOCAL_NAMES or any(
        target.host.endswith(f".{name}") for name in _LOCAL_NAMES
      ):
        raise RefusedUrlError("this host name is not public")
      literal = _literal(target.host)
      if literal is not None and not is_public(literal):
        raise RefusedUrlError("this address is not public")
    return target

  async def addresses(self, host: str, port: int) -> list[str]:
    """Addresses to connect to, resolved and checked now.

    Raises:
      RefusedUrlError: one of them is not public.
      OSError: the name does not resolve.
      ToolHostError: too many look-ups hang.
    """
    if _literal(host) is not None:
      found: Sequence[str] = [host]
    else:
      found = await self._resolver(host, port)
    addresses = [ipaddress.ip_address(a.partition("%")[0]) for a in found]
    if not self._is_allowed(host, port) and not all(map(is_public, addresses)):
      raise RefusedUrlError("this host has an address that is not public")
    return list(dict.fromkeys(map(str, addresses)))

  def _is_allowed(self, host: str, port: int) -> bool:
    return f"{host}:{port}" in self._allowed


def parse(url: str) -> Target:
  """Reads an http(s) URL; every unusual spelling is refused.

  Raises:
    RefusedUrlError: see the message.
  """
  url = url.strip()
  if len(url) > _MAX_URL_CHARS:
    raise RefusedUrlError(f"the URL is longer than {_MAX_URL_CHARS} characters")
  if any(ord(c) <= 32 or ord(c) == 127 or c == "\\" for c in url):
    raise RefusedUrlError("the URL has a space, backslash or control character")
  try:
    parts = urllib.parse.urlsplit(url)
    port = parts.port
  except ValueError as error:
    raise RefusedUrlError(f"the URL is malformed: {error}") from error
  if parts.scheme not in _PORTS:
    raise RefusedUrlError("the URL must begin with http:// or https://")
  if "@" in parts.netloc:
    raise RefusedUrlError("a user name in a URL is not accepted")
  path = urllib.parse.quote(parts.path or "/", safe="/%:;,@&=+$!*'()~-._")
  if parts.query:
    path += "?" + urllib.parse.quote(parts.query, safe="/?%:;,@&=+$!*'()~-._[]")
  return Target(
    scheme=parts.scheme,
    host=_host(parts.hostname or ""),
    port=_PORTS[parts.scheme] if port is None else port,
    path=path,
  )


def _host(text: str) -> str:
  """The host in its one canonical spelling."""
  if ":" in text:
    try:
      return str(ipaddress.IPv6Address(text))
    except ValueError as error:
      raise RefusedUrlError("the host is no valid IPv6 address") from error
  try:
    # Also maps full-width digits and the dots of other scripts.
    host = text.encode("idna").decode("ascii").lower().removesuffix(".")
  except UnicodeError as error:
    raise RefusedUrlError("the host name is not valid") from error
  labels = host.split(".")
  if not host or not all(_LABEL.fullmatch(label) for label in labels):
    raise RefusedUrlError("the host name is not valid")
  if _NUMBER.fullmatch(labels[-1]):
    # 2130706433, 0x7f.1, 0177.0.0.1: resolvers read them, nobody writes them.
    try:
      return str(ipaddress.IPv4Address(host))
    except ValueError as error:
      raise RefusedUrlError("write an address as a.b.c.d") from error
  if len(labels) == 1 and host != "localhost":
    raise RefusedUrlError("the host name has no domain")
  return host


def _literal(host: str) -> _Address | None:
  try:
    return ipaddress.ip_address(host)
  except ValueError:
    return None


def is_public(address: _Address) -> bool:
  """Whether an address is one of the public internet.

  IPv6 addresses that carry an IPv4 address are as public as that one.
  """
  if any(address in network for network in _NOT_PUBLIC):
    return False
  if isinstance(address, ipaddress.IPv6Address):
    teredo = address.teredo
    embedded = [address.ipv4_mapped, address.sixtofour, *(teredo or ())]
    if address in _NAT64:
      embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if int(address) >> 32 == 0:  # ::a.b.c.d, long deprecated
      return False
    found = [inner for inner in embedded if inner is not None]
    if found:
      return all(map(is_public, found))
    if address.is_site_local:
      return False
  return (
    address.is_global
    and not address.is_multicast
    and not address.is_reserved
    and not address.is_unspecified
  )
