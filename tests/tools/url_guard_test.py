"""Every way to write a private address is refused, and nothing is fetched."""

import asyncio
import ipaddress
import socket
import threading

import local_server
import pytest

from agentflow_jax.core import errors
from agentflow_jax.tools import call_threads, fetching, url_guard

PUBLIC = "93.184.215.14"

REFUSED = [
  "http://127.0.0.1/",
  "http://127.0.0.1:8080/",
  "http://127.8.9.1/",
  "http://0.0.0.0/",
  "http://[::1]/",
  "http://[::]/",
  "http://[::ffff:127.0.0.1]/",
  "http://[::ffff:7f00:1]/",
  "http://[::127.0.0.1]/",
  "http://[fe80::1]/",
  "http://[fe80::1%25eth0]/",
  "http://[fc00::1]/",
  "http://[fd12::1]/",
  "http://[fec0::1]/",
  "http://[ff02::1]/",
  "http://[64:ff9b::7f00:1]/",
  "http://[64:ff9b::a00:1]/",
  "http://[2002:7f00:1::]/",
  "http://[2002:a00:1::]/",
  "http://[2001:0:7f00:1::]/",
  "http://10.0.0.1/",
  "http://10.255.255.255/",
  "http://172.16.0.1/",
  "http://172.31.255.255/",
  "http://192.168.1.1/",
  "http://100.64.0.1/",
  "http://100.127.255.255/",
  "http://169.254.169.254/latest/meta-data/",
  "http://192.0.0.1/",
  "http://192.0.2.1/",
  "http://198.18.0.1/",
  "http://224.0.0.1/",
  "http://240.0.0.1/",
  "http://255.255.255.255/",
  "http://168.63.129.16/machine?comp=goalstate",
  "http://[::ffff:168.63.129.16]/",
  "http://[64:ff9b::168.63.129.16]/",
  "http://[2002:a83f:8110::]/",
  "http://192.88.99.1/",
  "http://[3fff::1]/",
  "http://[3fff:fff:ffff::1]/",
  "http://2130706433/",
  "http://0x7f000001/",
  "http://0x7f.0x0.0x0.0x1/",
  "http://017700000001/",
  "http://0177.0.0.1/",
  "http://127.1/",
  "http://127.0.1/",
  "http://0/",
  "http://127.0.0.1./",
  "http://1.1.1.1.1/",
  "http://256.1.1.1/",
  "http://localhost/",
  "http://localhost./",
  "http://LOCALHOST/",
  "http://a.localhost/",
  "http://printer.local/",
  "http://metadata.google.internal/",
  "http://intranet/",
  "http://user@example.org/",
  "http://user:password@example.org/",
  "http://example.org@127.0.0.1/",
  "http://127.0.0.1\\@example.org/",
  "http://example.org\\.evil/",
  "http://127\u30020\uff0e0\uff611/",
  "http://\uff11\uff12\uff17.0.0.1/",
  "http://\u2460\u2461\u2466.0.0.1/",
  "http://loc\u00adalhost/",
  "http://example.org:22/",
  "http://example.org:6379/",
  "http://example.org:0/",
  "http://example.org:99999/",
  "http://example.org:80a/",
  "http://exa mple.org/",
  "http://example.org/\r\nHost: 127.0.0.1",
  "http://exam\tple.org/",
  "http:///etc/passwd",
  "http://",
  "//example.org/",
  "example.org",
  "",
  "file:///etc/passwd",
  "gopher://example.org/",
  "ftp://example.org/",
  "data:text/html,hello",
  "javascript:alert(1)",
  "unix:///var/run/docker.sock",
  "http+unix://socket/",
  "dict://example.org/",
  "http://[::1",
  "http://-a.org/",
  "http://" + "a" * 64 + ".org/",
  "http://example.org/" + "a" * 3000,
]


def _resolving(*answers):
  """A resolver that gives the answers one after the other."""
  asked = []

  async def resolve(host, port):
    asked.append((host, port))
    return answers[min(len(asked), len(answers)) - 1]

  return resolve, asked


@pytest.mark.parametrize("url", REFUSED)
def test_refused_before_anything_is_resolved(url):
  resolve, asked = _resolving([PUBLIC])
  fetcher = fetching.Fetcher(url_guard.Guard(resolver=resolve))
  with pytest.raises(url_guard.RefusedUrlError):
    asyncio.run(fetcher.get(url))
  assert asked == []


@pytest.mark.parametrize(
  ("url", "canonical"),
  [
    ("http://Example.ORG", "http://example.org/"),
    ("https://example.org:443/a b".replace(" ", "%20"),
     "https://example.org/a%20b"),
    ("http://example.org.:8080/", "http://example.org:8080/"),
    ("http://b\u00fccher.example/\u00e9?q=\u00e9#x",
     "http://xn--bcher-kva.example/%C3%A9?q=%C3%A9"),
    ("http://1.1.1.1/", "http://1.1.1.1/"),
    ("http://[2606:4700::1111]/", "http://[2606:4700::1111]/"),
    ("http://[::ffff:8.8.8.8]/", "http://[::ffff:808:808]/"),
  ],
)  # fmt: skip
def test_public_urls_are_read_in_one_spelling(url, canonical):
  assert url_guard.Guard().check(url).url == canonical


@pytest.mark.parametrize(
  "addresses",
  [
    ["127.0.0.1"],
    ["10.0.0.1"],
    ["::1"],
    ["fe80::1%eth0"],
    ["::ffff:169.254.169.254"],
    [PUBLIC, "192.168.0.1"],  # one private among them is enough
    ["0.0.0.0"],
    ["168.63.129.16"],
    ["3fff::1"],
  ],
)
def test_names_with_a_private_address_are_refused(addresses):
  resolve, asked = _resolving(addresses)
  fetcher = fetching.Fetcher(url_guard.Guard(resolver=resolve))
  with pytest.raises(url_guard.RefusedUrlError, match="not public"):
    asyncio.run(fetcher.get("http://rebind.example/"))
  assert asked == [("rebind.example", 80)]


def test_a_name_is_resolved_once_and_the_checked_address_is_used(monkeypatch):
  """DNS rebinding: the second look-up would be private, and never happens."""
  resolve, asked = _resolving([PUBLIC], ["127.0.0.1"])
  connected = []

  async def connect_tcp(self, host, port, *args, **kwargs):
    connected.append((host, port))
    raise fetching.httpcore2.ConnectError("as far as the test goes")

  monkeypatch.setattr(
    fetching.httpcore2.AnyIOBackend, "connect_tcp", connect_tcp
  )
  fetcher = fetching.Fetcher(url_guard.Guard(resolver=resolve))
  with pytest.raises(fetching.FetchError, match="as far as"):
    asyncio.run(fetcher.get("http://rebind.example/"))
  assert asked == [("rebind.example", 80)]
  assert connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
  "location", ["http://127.0.0.1:{private}/", "//127.0.0.1:{private}/",
               "http://localhost:{private}/", "http://[::1]:{private}/",
               "file:///etc/passwd", "http://2130706433/",
               "http://rebind.example:8080/"]
)  # fmt: skip
def test_redirects_to_private_addresses_are_not_followed(location):
  resolve, _ = _resolving(["127.0.0.1"])
  with local_server.serving(lambda h: h.send(b"secret")) as private:
    where = location.format(private=private.server_port)

    def redirect(handler):
      handler.send(b"", 302, location=where)

    with local_server.serving(redirect) as server:
      guard = url_guard.Guard([server.authority], resolve)
      with pytest.raises(url_guard.RefusedUrlError):
        asyncio.run(fetching.Fetcher(guard).get(server.url))
      assert len(server.requests) == 1
    assert private.requests == []


def test_only_the_allowed_pair_is_reachable():
  with (
    local_server.serving(lambda h: h.send(b"yes")) as open_one,
    local_server.serving(lambda h: h.send(b"no")) as closed_one,
  ):
    fetcher = fetching.Fetcher(url_guard.Guard([open_one.authority]))
    assert asyncio.run(fetcher.get(open_one.url)).body == b"yes"
    for url in (closed_one.url, f"http://localhost:{open_one.server_port}/"):
      with pytest.raises(url_guard.RefusedUrlError):
        asyncio.run(fetcher.get(url))
    assert closed_one.requests == []


@pytest.fixture
def hanging(monkeypatch):
  """The system's resolver hangs; a list of the look-ups that came back."""
  release, returned = threading.Event(), []

  def getaddrinfo(host, *unused, **also_unused):
    release.wait(20)  # what holds up asyncio.run makes the test slow, not hang
    returned.append(host)
    raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")

  monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
  monkeypatch.setattr(
    url_guard, "_LOOKUPS", call_threads.CallThreads("lookup", max_running=2)
  )
  yield returned
  release.set()


@pytest.mark.parametrize("guard", [url_guard.Guard(), None])
def test_a_look_up_that_hangs_is_cut_and_holds_up_nothing(hanging, guard):
  fetcher = fetching.Fetcher(guard, timeout_s=0.2)
  with pytest.raises(fetching.FetchError, match=r"within 0\.2 s"):
    asyncio.run(fetcher.get("http://hang.example/"))
  assert hanging == []  # asyncio.run did not wait for it either


def test_look_ups_that_hang_are_limited(hanging):
  fetcher = fetching.Fetcher(url_guard.Guard(), timeout_s=0.1)
  for _ in range(2):
    with pytest.raises(fetching.FetchError, match="within"):
      asyncio.run(fetcher.get("http://hang.example/"))
  with pytest.raises(errors.ToolHostError, match="2 calls have not returned"):
    asyncio.run(fetcher.get("http://hang.example/"))
  assert hanging == []


def test_the_systems_resolver_is_asked():
  assert "127.0.0.1" in asyncio.run(url_guard.resolve("localhost", 80))


def test_proxies_of_the_environment_are_not_used(monkeypatch):
  with (
    local_server.serving(lambda h: h.send(b"proxied")) as proxy,
    local_server.serving(lambda h: h.send(b"direct")) as server,
  ):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
      monkeypatch.setenv(name, proxy.url)
    fetcher = fetching.Fetcher(url_guard.Guard([server.authority]))
    assert asyncio.run(fetcher.get(server.url)).body == b"direct"
    assert proxy.requests == []


def test_allowed_entries_are_host_and_port():
  for entry in ("example.org", ":80", "example.org:http", ""):
    with pytest.raises(errors.ConfigError, match="HOST:PORT"):
      url_guard.Guard([entry])


def test_public_addresses_are_told_from_private_ones():
  public = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::"]
  # Neighbours of what is blocked.
  public += ["168.63.129.15", "168.63.129.17", "192.88.98.1", "192.88.100.1"]
  for text in public:
    assert url_guard.is_public(ipaddress.ip_address(text)), text
