"""Fetching: what comes back, and that no answer can hurt."""

import asyncio
import functools
import gzip
import os
import time
import zlib

import local_server
import psutil
import pytest

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.tools import fetching, url_guard

MIB = 1 << 20


def _fetch(answer, **options):
  with local_server.serving(answer) as server:
    guard = url_guard.Guard([server.authority])
    return asyncio.run(fetching.Fetcher(guard, **options).get(server.url))


def test_a_page_comes_back_whole():
  with local_server.serving(
    lambda h: h.send(
      "caf\u00e9".encode("latin-1"), 200, "Text/HTML; charset=latin-1"
    )
  ) as server:
    fetcher = fetching.Fetcher(url_guard.Guard([server.authority]))
    got = asyncio.run(fetcher.get(server.url + "/a", query={"q": "x y&z"}))
  assert (got.status, got.cut, got.text) == (200, False, "caf\u00e9")
  assert got.content_type == "text/html"
  assert server.requests == [("GET", "/a?q=x+y%26z", b"")]
  assert server.seen[0]["host"] == server.authority
  assert not {"cookie", "authorization"} & {k.lower() for k in server.seen[0]}


def test_json_is_posted_and_read():
  with local_server.serving(lambda h: h.send_json({"a": [1]}, 201)) as server:
    got = asyncio.run(fetching.Fetcher(None).post_json(server.url, {"b": 2}))
    assert (got.status, got.json()) == (201, {"a": [1]})
    assert server.requests == [("POST", "/", b'{"b": 2}')]


@pytest.mark.parametrize(
  "body", [b"", b"{", b"[" * 10**5, b"\xff", b'{"a": 1} x']
)
def test_what_is_not_json_is_a_fetch_error(body):
  got = _fetch(lambda h: h.send(body))
  with pytest.raises(fetching.FetchError, match="not JSON"):
    got.json()


@pytest.mark.parametrize("charset", ["utf-99", "zip", "", "\u00fc", "idna",
                                     "punycode", "unicode_escape"])  # fmt: skip
def test_odd_charsets_are_read_as_utf8(charset):
  response = fetching.Response(
    url="", status=200, body="\u00e9\ud7ff".encode(), cut=False,
    headers={"content-type": f"text/html; charset={charset}"},
  )  # fmt: skip
  assert response.text == "\u00e9\ud7ff"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_pages_are_read(encoding):
  packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](b"hello")
  got = _fetch(lambda h: h.send(packed, content_encoding=encoding))
  assert got.body == b"hello"


@functools.cache
def _bomb(compress, size_mib=64):
  packer = zlib.compressobj(9, zlib.DEFLATED, 31 if compress == "gzip" else 15)
  zeros = bytes(MIB)
  packed = b"".join(packer.compress(zeros) for _ in range(size_mib))
  return packed + packer.flush()


def _endless_chunks(handler):
  handler.send_response(200)
  handler.send_header("transfer-encoding", "chunked")
  handler.end_headers()
  piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
  while True:
    handler.wfile.write(piece)


def _hundred_megabytes(handler):
  handler.send_response(200)
  handler.send_header("content-length", str(100 * MIB))
  handler.end_headers()
  for _ in range(100):
    handler.wfile.write(bytes(MIB))


def _drip(handler):
  handler.send_response(200)
  handler.send_header("content-length", "1000000")
  handler.end_headers()
  while True:
    handler.wfile.write(b"x")
    handler.wfile.flush()
    time.sleep(0.05)


def _header_drip(handler):
  while True:
    handler.wfile.write(b"X")
    handler.wfile.flush()
    time.sleep(0.05)


def _endless_headers(handler):
  handler.send_response_only(200)
  handler.flush_headers()
  while True:
    handler.wfile.write(b"x: " + b"y" * 1000 + b"\r\n")


@pytest.mark.parametrize(
  "answer",
  [
    _endless_chunks,
    _hundred_megabytes,
    lambda h: h.send(_bomb("gzip"), content_encoding="gzip"),
    lambda h: h.send(_bomb("deflate"), content_encoding="deflate"),
  ],
  ids=["chunks", "length", "gzip", "deflate"],
)
def test_endless_bodies_are_cut(answer):
  _bomb("gzip"), _bomb("deflate")
  _fetch(lambda h: h.send(b"warm"))
  before = psutil.Process().memory_info().rss
  got = _fetch(answer)
  assert got.cut
  assert len(got.body) == fetching.MAX_BYTES
  assert psutil.Process().memory_info().rss - before < 50 * MIB


@pytest.mark.parametrize(
  "answer", [_drip, _header_drip, lambda h: time.sleep(3)]
)
def test_slow_answers_end_at_the_limit(answer):
  started_s = time.monotonic()
  with pytest.raises(fetching.FetchError, match=r"within 0.5 s"):
    _fetch(answer, timeout_s=0.5)
  assert time.monotonic() - started_s < 10


def test_the_callers_deadline_counts_too():
  with local_server.serving(lambda h: time.sleep(1)) as server:
    fetcher = fetching.Fetcher(None, timeout_s=100)
    with pytest.raises(fetching.FetchError):
      asyncio.run(
        fetcher.get(server.url, deadline=deadline_lib.Deadline.after(0.2))
      )


def _garbage(handler):
  handler.wfile.write(b"\x00\x01\x02" * 100 + b"\r\n\r\n")


def _hang_up(handler):
  handler.send_response(200)
  handler.send_header("content-length", "100")
  handler.end_headers()
  handler.wfile.write(b"half")


@pytest.mark.parametrize(
  "answer",
  [
    _garbage,
    _hang_up,
    _endless_headers,
    lambda h: None,
    lambda h: h.send(b"", 302, location=h.path),
    lambda h: h.send(b"not gzip", content_encoding="gzip"),
    lambda h: h.send(b"x", content_encoding="br"),
    lambda h: h.send(b"x", content_encoding="gzip, gzip"),
  ],
)
def test_broken_answers_are_fetch_errors(answer):
  with pytest.raises(fetching.FetchError):
    _fetch(answer)


def test_nobody_there_is_a_fetch_error():
  with local_server.serving(lambda h: h.send(b"")) as server:
    url, authority = server.url, server.authority
  for guard in (None, url_guard.Guard([authority])):
    with pytest.raises(fetching.FetchError):
      asyncio.run(fetching.Fetcher(guard).get(url))


def test_a_configured_service_is_not_followed_elsewhere():
  with local_server.serving(lambda h: h.send(b"key!")) as other:
    got_by = lambda h: h.send(b"", 302, location=other.url)  # noqa: E731
    with local_server.serving(got_by) as server:
      got = asyncio.run(
        fetching.Fetcher(None).get(server.url, headers={"x-key": "secret"})
      )
    assert got.status == 302
    assert other.requests == []


def test_no_descriptor_outlives_a_call():
  with local_server.serving(_endless_chunks) as server:
    fetcher = fetching.Fetcher(None, max_bytes=1000)

    async def some():
      before = len(os.listdir("/proc/self/fd"))
      await asyncio.gather(*(fetcher.get(server.url) for _ in range(20)))
      task = asyncio.ensure_future(fetcher.get(server.url))
      await asyncio.sleep(0.05)
      task.cancel()
      await asyncio.gather(task, return_exceptions=True)
      for _ in range(100):  # the server's own ends close in its threads
        if len(os.listdir("/proc/self/fd")) <= before:
          return True
        await asyncio.sleep(0.05)
      return False

    assert asyncio.run(some())
