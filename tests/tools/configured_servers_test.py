"""Tools over what our launch scripts make: a dense index, a search server."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys

import configured
import local_server
import pytest
import search_fakes

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import bm25_index

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def _build_index(folder, url):
  """launch/build_index.py as a user runs it."""
  return subprocess.run(
    [
      *(sys.executable, _LAUNCH / "build_index.py", "--corpus=corpus.jsonl"),
      *("--out=index", f"--embedding_url={url}", "--embedding_model=a-model"),
    ],
    cwd=folder,
    env=os.environ | {"EMBEDDING_API_KEY": "the-key"},
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_dense_index_is_built_and_searched(tmp_path, monkeypatch):
  rows = [
    {"id": f"p{text}", "title": f"T {text}", "text": text}
    for text in ("kkkk", "llll", "klkl")
  ]
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (tmp_path / "corpus.jsonl").write_text(lines)
  monkeypatch.setenv("EMBEDDING_API_KEY", "the-key")
  index = {
    "enabled": ("wikipedia_search",),
    "search_index_dir": str(tmp_path / "index"),
    "search_top_k": 2,
  }
  with local_server.serving(lambda h: h.send(b"", 500)) as server:
    done = _build_index(tmp_path, server.url)
  assert done.returncode == 2
  (complaint,) = done.stderr.splitlines()
  assert "the embedding endpoint failed" in complaint
  assert not (tmp_path / "index").exists()

  with local_server.serving(search_fakes.embedding) as server:
    done = _build_index(tmp_path, f"{server.url}/v1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 passages in ")
    (body,) = configured.asked(server, "/v1/embeddings")
    assert json.loads(body)["model"] == "a-model"
    assert len(json.loads(body)["input"]) == 3
    toolbox = configured.toolbox(
      embedding_url=f"{server.url}/v1", embedding_model="a-model", **index
    )
    output = configured.checked_call(
      toolbox, "Wikipedia_Search_Tool", query="lllllll"
    )
    assert output.splitlines() == ["T llll: llll", "T klkl: klkl"]
    # The build, the query and the check: each with the model and the key.
    assert len(server.requests) == 3
    for body, headers in zip(
      configured.asked(server, "/v1/embeddings"), server.seen, strict=True
    ):
      assert json.loads(body)["model"] == "a-model"
      assert headers["authorization"] == "Bearer the-key"
  with pytest.raises(
    errors.UserError, match=r"dense: set tools\.embedding_url"
  ):
    configured.toolbox(**index)


@pytest.mark.slow
def test_google_search_asks_our_own_retrieval_server(tmp_path, monkeypatch):
  pytest.importorskip("httptools")
  found = [
    bm25_index.Passage(id="1", title="Laos", text="The kip is used in Laos."),
    bm25_index.Passage(id="2", title="Peru", text="The sol is used in Peru."),
  ]
  bm25_index.build(found, tmp_path / "index")
  with subprocess.Popen(
    [
      *(sys.executable, _LAUNCH / "serve_retriever.py", "--port=0"),
      *("--workers=1", f"--index={tmp_path / 'index'}"),
    ],
    env=os.environ | {"RETRIEVER_TOKEN": "the-token"},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  ) as process:
    try:
      assert process.stdout
      port = int(process.stdout.readline().rpartition(":")[2])

      def toolbox(token):
        monkeypatch.setenv("RETRIEVER_TOKEN", token)
        return configured.toolbox(
          enabled=("google_search",),
          google_backend="retrieve",
          google_url=f"http://127.0.0.1:{port}/retrieve",
          search_top_k=1,
        )

      output = configured.checked_call(
        toolbox("the-token"), "Google_Search_Tool", query="kip used"
      )
      assert output == "[1] Laos: The kip is used in Laos."
      nothing = configured.call(
        toolbox("the-token"), "Google_Search_Tool", query="nowhere"
      )
      assert nothing.error == tool_lib.ToolErrorKind.NO_RESULT
      with pytest.raises(errors.ToolHostError, match="HTTP status 401"):
        asyncio.run(toolbox("another").check())
    finally:
      process.terminate()
