"""The `/retrieve` server: answers, refusals, and 256 clients at once."""

import asyncio
import gzip
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from agentflow_jax.tools import bm25_index, retrieval_server

_ROOT = pathlib.Path(__file__).parents[2]
_CORPUS = _ROOT.parent / "shared/data/wiki_passages/corpus.jsonl.gz"
PASSAGES = [
  bm25_index.Passage(id="1", title="Laos", text="The kip is used in Laos."),
  bm25_index.Passage(id="2", title="Peru", text="The sol is used in Peru."),
]


@pytest.fixture
def retriever(tmp_path):
  bm25_index.build(PASSAGES, tmp_path / "index")
  index = bm25_index.Bm25Index.open(tmp_path / "index")
  return retrieval_server.Retriever(index, "the-token")


def _ask(retriever, **request):
  return json.loads(retriever.retrieve(json.dumps(request).encode()))


def test_answers_have_the_shape_of_search_r1(retriever):
  for _ in range(2):  # the second comes from the cache
    answer = _ask(
      retriever, queries=["Laos", "nowhere"], topk=1, return_scores=True
    )
    ((entry,), nothing) = answer["result"]
    assert nothing == []
    assert entry["document"] == {
      "id": "1",
      "contents": '"Laos"\nThe kip is used in Laos.',
    }
    assert entry["score"] > 0
  plain = _ask(retriever, queries=["used"])
  assert [d["id"] for d in plain["result"][0]] == ["1", "2"]


@pytest.mark.parametrize(
  "body",
  [
    b"",
    b"[]",
    b"{",
    b"[" * 10**5,
    b'{"queries": []}',
    b'{"queries": "a"}',
    b'{"queries": [1]}',
    b'{"queries": ["a"], "topk": 0}',
    b'{"queries": ["a"], "topk": true}',
    b'{"queries": ["a"], "topk": 101}',
    b'{"queries": ["a"], "topk": "3"}',
    json.dumps({"queries": ["a"] * 257}).encode(),
  ],
)
def test_bad_requests_are_refused(retriever, body):
  with pytest.raises(retrieval_server.Refusal) as caught:
    retriever.retrieve(body)
  assert caught.value.status == 400


def _serving(retriever, talk):
  """Runs `talk(port)` against a server on loopback."""
  pytest.importorskip("httptools")

  async def both():
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as sock:
      port = sock.getsockname()[1]
      task = asyncio.ensure_future(
        retrieval_server.serve(retriever, [sock], stop)
      )
      try:
        return await talk(port)
      finally:
        stop.set()
        await task

  return asyncio.run(both())


async def _raw(port, data):
  reader, writer = await asyncio.open_connection("127.0.0.1", port)
  writer.write(data)
  answer = await asyncio.wait_for(reader.read(), 10)
  writer.close()
  return answer.decode()


def _post(body, token="the-token", connection="close"):
  return (
    f"POST /retrieve HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\n"
    f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
  ).encode() + body


@pytest.mark.parametrize(
  ("data", "status"),
  [
    (_post(b'{"queries": ["Laos"]}'), 200),
    (_post(b'{"queries": ["Laos"]}', "wrong"), 401),
    (_post(b'{"queries": ["Laos"]}', "\u00e9"), 401),
    (_post(b"{}"), 400),
    (b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n", 200),
    (b"GET /retrieve HTTP/1.1\r\nconnection: close\r\n\r\n", 405),
    (b"GET /other HTTP/1.1\r\nconnection: close\r\n\r\n", 404),
    (b"garbage\r\n\r\n", 400),
    (_post(b"x" * (2 << 20)), 413),
  ],
)
def test_statuses(retriever, data, status):
  answer = _serving(retriever, lambda port: _raw(port, data))
  assert answer.startswith(f"HTTP/1.1 {status} ")
  assert "the-token" not in answer


def test_a_connection_is_kept_and_may_pipeline(retriever):
  body = b'{"queries": ["Laos"]}'
  data = _post(body, connection="keep-alive") * 3 + _post(body)
  answer = _serving(retriever, lambda port: _raw(port, data))
  assert answer.count("HTTP/1.1 200 OK") == 4


def _launch(*flags, token=""):
  return subprocess.Popen(
    [sys.executable, "launch/serve_retriever.py", "--port=0", *flags],
    cwd=_ROOT,
    env={**os.environ, "RETRIEVER_TOKEN": token},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_it_does_not_open_up_by_accident(tmp_path):
  pytest.importorskip("httptools")
  bm25_index.build(PASSAGES, tmp_path / "index")
  index = f"--index={tmp_path / 'index'}"
  for flags, message in (
    ((index,), "set RETRIEVER_TOKEN"),
    ((index, "--no_token", "--host=0.0.0.0"), "open the index to everybody"),
    (("--index=/nonexistent",), "there is none"),
  ):
    token = "t" if "nonexistent" in flags[0] else ""
    with _launch(*flags, token=token) as process:
      _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in complaint
    assert len(complaint.strip().splitlines()) == 1


async def _client(port, queries, latencies, pause_s, first_s):
  """Asks one query after the other on one connection."""
  await asyncio.sleep(first_s)
  reader, writer = await asyncio.open_connection("127.0.0.1", port)
  for query in queries:
    body = json.dumps({"queries": [query], "topk": 3, "return_scores": True})
    started_s = time.perf_counter()
    writer.write(_post(body.encode(), "t", "keep-alive"))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    answer = await reader.readexactly(length)
    latencies.append(time.perf_counter() - started_s)
    assert head.startswith(b"HTTP/1.1 200") and b'"result"' in answer
    await asyncio.sleep(pause_s)
  writer.close()


async def _load(port, queries, pause_s, clients=256, each=10):
  latencies = []
  await asyncio.gather(
    *(
      _client(
        port,
        queries[n * each : (n + 1) * each],
        latencies,
        pause_s,
        pause_s * n / clients,  # they are not in step
      )
      for n in range(clients)
    )
  )
  return np.array(latencies) * 1000


@pytest.mark.slow
def test_256_clients_on_wikipedia(tmp_path):
  """Each client waits a second between its queries, as an agent does.

  Without waiting, 256 clients measure how long 256 queries take, which is
  printed too: it is throughput, and the machine's.
  """
  pytest.importorskip("httptools")
  if not _CORPUS.exists():
    pytest.skip("no ../shared/data/wiki_passages beside the repository")
  with gzip.open(_CORPUS, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
  bm25_index.build(
    (
      bm25_index.Passage(id=r["id"], title=r["title"], text=r["text"])
      for r in rows
    ),
    tmp_path / "index",
  )
  # No query comes twice, so the cache does not help.
  queries = [
    f"{row['title']} {' '.join(row['text'].split()[5:10])}"
    for row in rows[:: len(rows) // 2600]
  ]
  process = _launch(f"--index={tmp_path / 'index'}", token="t")
  try:
    line = process.stdout.readline()
    assert line.startswith("serving 55734 passages")
    port = int(line.rpartition(":")[2])
    asyncio.run(_load(port, queries[-300:], 0.0, each=1))  # warm
    paced = asyncio.run(_load(port, queries, 1.0))
    rushed = asyncio.run(_load(port, queries[::-1], 0.0))
  finally:
    process.terminate()
    process.communicate(timeout=30)
  assert process.returncode == 0
  for name, found in (("paced", paced), ("rushed", rushed)):
    p50, p99 = np.percentile(found, [50, 99])
    print(f"{name}: {len(found)} queries, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
  assert len(paced) == len(rushed) == 2560
  assert np.percentile(paced, 99) <= 50
