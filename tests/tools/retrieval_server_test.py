"""The `/retrieve` server: answers, refusals, and 256 clients at once."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.tools import bm25_index, retrieval_server

_ROOT = pathlib.Path(__file__).parents[2]
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


@hypothesis.settings(
  deadline=None,
  max_examples=200,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.text(), st.text(), st.text())
def test_documents_are_cut_from_lines_exactly(passage_id, title, text):
  passage = {"id": passage_id, "title": title, "text": text}
  line = json.dumps(passage, ensure_ascii=False) + "\n"
  document = retrieval_server._document(line.encode("utf-8", "replace"))
  whole = json.loads(line.encode("utf-8", "replace"))
  assert json.loads(document) == {
    "id": whole["id"],
    "contents": f'"{whole["title"]}"\n{whole["text"]}',
  }


def test_text_that_looks_like_json_stays_text(tmp_path):
  nasty = bm25_index.Passage(
    id='", "title": "x',
    title='kip", "text": "\\',
    text='"}\n{"id": "forged", "title": "", "text": ""}\u2028\x00 ',
  )
  bm25_index.build([nasty], tmp_path / "index")
  index = bm25_index.Bm25Index.open(tmp_path / "index")
  answer = _ask(retrieval_server.Retriever(index, ""), queries=["kip"])
  assert answer == {
    "result": [[{"id": nasty.id, "contents": f'"{nasty.title}"\n{nasty.text}'}]]
  }


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


def test_it_serves_without_numba_and_says_so(tmp_path):
  pytest.importorskip("httptools")
  bm25_index.build(PASSAGES, tmp_path / "index")
  launcher = str(_ROOT / "launch/serve_retriever.py")
  flags = ["--port=0", "--workers=1", f"--index={tmp_path / 'index'}"]
  program = (
    "import runpy, sys; sys.modules['numba'] = None;"
    f"sys.argv = {[launcher, *flags]!r}; runpy.run_path({launcher!r}, None,"
    "'__main__')"
  )
  with subprocess.Popen(
    [sys.executable, "-c", program],
    cwd=_ROOT,
    env={**os.environ, "RETRIEVER_TOKEN": "t"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    port = int(process.stdout.readline().rpartition(":")[2])
    body = b'{"queries": ["Laos"]}'
    answer = asyncio.run(_raw(port, _post(body, "t")))
    process.terminate()
    _, complaint = process.communicate(timeout=30)
  assert answer.startswith("HTTP/1.1 200 OK")
  assert "The kip is used in Laos." in answer
  assert "slower" in complaint
  assert "numba" in complaint


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
