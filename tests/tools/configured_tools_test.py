"""Tools as a config names them: checked, built by the registry, called once.

Every service is a real server on loopback. The page reader reaches its one
because `tools.web_allowed_hosts` names it; the others are named by the user,
so that no guard stands between.
"""

import asyncio
import json
import pathlib
import sys

import configured
import local_server
import pytest
import search_fakes

from agentflow_jax.core import config_validation, errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import registry, user_tools

_HERE = pathlib.Path(__file__).parent


def _pages(handler):
  """Pages, and an embedding endpoint beside them."""
  if handler.path == "/v1/embeddings":
    return search_fakes.embedding(handler)
  filler = "<p>" + "Rivers and hues. " * 700
  page = f"{filler}<p>The currency: see below.{filler}<p>llllll{filler}"
  return handler.send(page.encode())


def test_web_search_reads_a_page_of_an_allowed_host():
  engine = configured.Engine()
  with local_server.serving(_pages) as server:
    toolbox = configured.toolbox(
      engine,
      enabled=("web_search",),
      web_allowed_hosts=("wiki.intranet:80", server.authority),
    )
    url = f"{server.url}/laos"
    result = configured.call(
      toolbox, "Web_Search_Tool", query="currency", url=url
    )
    assert result.output == f"The kip.\nSource: {url}"
    assert "The currency: see below." in engine.prompts[0]
    assert "llllll" not in engine.prompts[0]
    # Without the key nothing of ours is reached.
    for hosts in ((), (f"127.0.0.1:{server.server_port + 1}",)):
      toolbox = configured.toolbox(
        enabled=("web_search",), web_allowed_hosts=hosts
      )
      result = configured.call(
        toolbox, "Web_Search_Tool", query="currency", url=url
      )
      assert result.error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS
    assert [path for _, path, _ in server.requests] == ["/laos"]


def test_web_search_ranks_by_the_embedding_endpoint(monkeypatch):
  monkeypatch.setenv("EMBEDDING_API_KEY", "the-key")
  engine = configured.Engine()
  with local_server.serving(_pages) as server:
    toolbox = configured.toolbox(
      engine,
      enabled=("web_search",),
      web_allowed_hosts=(server.authority,),
      embedding_url=f"{server.url}/v1",
      embedding_model="a-model",
    )
    configured.checked_call(
      toolbox, "Web_Search_Tool", query="llll", url=f"{server.url}/laos"
    )
    (body,) = configured.asked(server, "/v1/embeddings")
    assert json.loads(body)["model"] == "a-model"
    assert server.seen[1]["authorization"] == "Bearer the-key"
    # The check fetches the first allowed host.
    assert [path for _, path, _ in server.requests if "v1" not in path] == [
      "/laos",
      "/",
    ]
  # No word of the query is there; its vector is near.
  assert "llllll" in engine.prompts[0]


@pytest.mark.parametrize("dense", [False, True])
def test_wikipedia_search_asks_the_api_of_a_wiki(dense):
  def answer(handler):
    if handler.path == "/v1/embeddings":
      search_fakes.embedding(handler)
    else:
      search_fakes.wiki(handler)

  with local_server.serving(answer) as server:
    embedding = {
      "embedding_url": f"{server.url}/v1",
      "embedding_model": "a-model",
    }
    toolbox = configured.toolbox(
      enabled=("wikipedia_search",),
      wikipedia_source="api",
      wikipedia_api_url=f"{server.url}/w/api.php",
      search_top_k=1,
      search_passage_chars=60,
      **(embedding if dense else {}),
    )
    output = configured.checked_call(
      toolbox, "Wikipedia_Search_Tool", query="currency kip"
    )
    assert len(output.splitlines()) == 1
    assert len(output) < 100
    assert output.startswith("Page 7: " if not dense else "Page ")
    paths = {path.partition("?")[0] for _, path, _ in server.requests}
    assert paths == {"/w/api.php"} | ({"/v1/embeddings"} if dense else set())
    assert all(
      json.loads(body)["model"] == "a-model"
      for body in configured.asked(server, "/v1/embeddings")
    )


# By backend: the end of google_url, what is shown, and where it asks.
_GOOGLE = {
  "programmable_search": (
    "/v1",
    [
      "[1] Laos (https://a.example/): A country.",
      "[2] Kip (https://b.example/)",
    ],
    "/v1?q=Laos&num=2&cx=the-engine",
  ),
  "gemini": (
    "/v1beta",
    ["\u00c9: the kip.[1]", "[1] a (https://a.example/)"],
    "/v1beta/models/a-model:generateContent",
  ),
  "searxng": (
    "/searx/",
    ["[1] T (https://a.example/)", "[2] T (https://a.example/)"],
    "/searx/search?q=Laos&format=json",
  ),
  "retrieve": (
    "/retrieve",
    ["[1] Laos: A country.", "[2] Laos: A country."],
    "/retrieve",
  ),
}
_SECRETS = {
  "GOOGLE_API_KEY": "the-google-key",
  "GOOGLE_SEARCH_ENGINE_ID": "the-engine",
  "RETRIEVER_TOKEN": "the-token",
}


@pytest.mark.parametrize(
  "backend", config_validation.CHOICES["tools.google_backend"]
)
def test_google_search_asks_the_backend_of_the_config(backend, monkeypatch):
  for name, value in _SECRETS.items():
    monkeypatch.setenv(name, value)
  where, shown, path = _GOOGLE[backend]
  answer = search_fakes.GOOGLE[backend]
  with local_server.serving(lambda h: h.send_json(answer)) as server:
    toolbox = configured.toolbox(
      enabled=("google_search",),
      google_backend=backend,
      google_url=server.url + where,
      google_model="a-model",
      search_top_k=2,
    )
    output = configured.checked_call(
      toolbox, "Google_Search_Tool", query="Laos"
    )
    assert output.splitlines() == shown
    (_, asked, body), (_, checked, _) = server.requests
    assert asked == path
    assert checked == path.replace("Laos", "Wikipedia").replace(
      "num=2", "num=1"
    )
    if backend == "gemini":
      assert json.loads(body)["contents"][0]["parts"] == [{"text": "Laos"}]
    if backend == "retrieve":
      assert json.loads(body)["queries"] == ["Laos"]
      assert json.loads(body)["topk"] == 2
    sent = server.seen[0]
    keys = (sent.get("x-goog-api-key"), sent.get("authorization"))
    assert (
      keys
      == {
        "programmable_search": ("the-google-key", None),
        "gemini": ("the-google-key", None),
        "searxng": (None, None),
        "retrieve": (None, "Bearer the-token"),
      }[backend]
    )


@pytest.mark.parametrize("backend", _GOOGLE)
def test_a_backend_that_fails_does_not_pass_the_check(backend, monkeypatch):
  for name, value in _SECRETS.items():
    monkeypatch.setenv(name, value)
  with local_server.serving(lambda h: h.send(b"", 403)) as server:
    toolbox = configured.toolbox(
      enabled=("google_search",),
      google_backend=backend,
      google_url=server.url,
    )
    with pytest.raises(errors.ToolHostError, match="HTTP status 403"):
      asyncio.run(toolbox.check())


def test_an_mcp_server_is_tools_enough():
  pytest.importorskip("mcp")
  toolbox = configured.toolbox(
    enabled=(), mcp_servers=(f"raw={sys.executable} {_HERE / 'raw_mcp.py'}",)
  )
  assert all(name.startswith("raw_") for name in toolbox)
  assert configured.checked_call(toolbox, "raw_small_Tool") == "ok"


def test_a_tool_of_the_users_is_tools_enough(monkeypatch):
  monkeypatch.setattr(user_tools, "_decorated", {})

  @user_tools.tool(example={"text": "a"})
  def shout(text: str) -> str:
    """Makes a text loud."""
    return text.upper()

  toolbox = configured.toolbox(enabled=("shout",))
  assert list(toolbox) == ["Shout_Tool"]
  assert configured.checked_call(toolbox, "Shout_Tool", text="a") == "A"


def test_no_tool_at_all_is_refused(monkeypatch):
  with pytest.raises(errors.ConfigError, match="at least one tool"):
    configured.toolbox(enabled=(), user_modules=("mine",))
  monkeypatch.setattr(registry.mcp_tools, "connect", lambda entry: [])
  with pytest.raises(errors.ConfigError, match="no server of .* lists a tool"):
    configured.toolbox(enabled=(), mcp_servers=("bare=python bare_server.py",))
  toolbox = configured.toolbox(
    enabled=("base_generator",), mcp_servers=("bare=python bare_server.py",)
  )
  assert list(toolbox) == ["Base_Generator_Tool"]
