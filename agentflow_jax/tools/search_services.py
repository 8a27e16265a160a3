"""The services behind google_search: one row each in `SERVICES`.

Flow: query -> the service's request -> `Found` results in one shape. Keys come
from the environment and travel in headers, never in a URL.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors
from agentflow_jax.tools import service

GOOGLE_KEY = "GOOGLE_API_KEY"
ENGINE_ID = "GOOGLE_SEARCH_ENGINE_ID"
RETRIEVER_TOKEN = "RETRIEVER_TOKEN"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
  """One result: `url` may be empty (a local passage)."""

  title: str
  text: str
  url: str = ""


class SearchService(Protocol):
  """Finds things on the web, or in whatever it holds."""

  async def search(
    self, query: str, top_k: int, deadline: deadline_lib.Deadline
  ) -> Sequence[Found]:
    """Results, best first. Raises ToolHostError."""
    ...


class ProgrammableSearch:
  """Google Programmable Search: a key and a search engine id."""

  URL = "https://customsearch.googleapis.com/customsearch/v1"

  def __init__(self, url: str, model: str):
    del model
    self._service = service.Service("Google search", url or self.URL)
    self._headers = {"x-goog-api-key": _key(GOOGLE_KEY)}
    self._engine_id = _key(ENGINE_ID)

  async def search(
    self, query: str, top_k: int, deadline: deadline_lib.Deadline
  ) -> Sequence[Found]:
    answer = await self._service.get(
      {"q": query, "num": str(min(top_k, 10)), "cx": self._engine_id},
      deadline,
      self._headers,
    )
    return _read(
      self._service,
      lambda: [
        Found(
          title=str(item["title"]),
          text=str(item.get("snippet", "")),
          url=str(item["link"]),
        )
        for item in answer.get("items", [])
      ],
    )


class GeminiGrounding:
  """A Gemini model that searches Google and cites what it found."""

  URL = "https://generativelanguage.googleapis.com/v1beta"

  def __init__(self, url: str, model: str):
    base = (url or self.URL).rstrip("/")
    self._service = service.Service(
      "Gemini", f"{base}/models/{model}:generateContent"
    )
    self._headers = {"x-goog-api-key": _key(GOOGLE_KEY)}

  async def search(
    self, query: str, top_k: int, deadline: deadline_lib.Deadline
  ) -> Sequence[Found]:
    """The answer with [n] citations first, then the sources."""
    answer = await self._service.post(
      {
        "contents": [{"role": "user", "parts": [{"text": query}]}],
        "tools": [{"google_search": {}}],
      },
      deadline,
      self._headers,
    )
    return _read(self._service, lambda: _grounded(answer, top_k))


class SearxNg:
  """A SearXNG instance that allows the JSON format."""

  def __init__(self, url: str, model: str):
    del model
    self._service = service.Service(
      "SearXNG", _required(url, "searxng").rstrip("/") + "/search"
    )

  async def search(
    self, query: str, top_k: int, deadline: deadline_lib.Deadline
  ) -> Sequence[Found]:
    answer = await self._service.get({"q": query, "format": "json"}, deadline)
    return _read(
      self._service,
      lambda: [
        Found(
          title=str(item["title"]),
          text=str(item.get("content") or ""),
          url=str(item["url"]),
        )
        for item in answer["results"][:top_k]
      ],
    )


class Retriever:
  """A `/retrieve` server: ours (launch/serve_retriever.py) or Search-R1's."""

  def __init__(self, url: str, model: str):
    del model
    self._service = service.Service("the retriever", _required(url, "retrieve"))
    token = os.environ.get(RETRIEVER_TOKEN, "")
    self._headers = {"authorization": f"Bearer {token}"} if token else {}

  async def search(
    self, query: str, top_k: int, deadline: deadline_lib.Deadline
  ) -> Sequence[Found]:
    answer = await self._service.post(
      {"queries": [query], "topk": top_k, "return_scores": True},
      deadline,
      self._headers,
    )
    return _read(
      self._service,
      lambda: [_document(entry) for entry in answer["result"][0][:top_k]],
    )


SERVICES: Mapping[str, Callable[[str, str], SearchService]] = {
  "programmable_search": ProgrammableSearch,
  "gemini": GeminiGrounding,
  "searxng": SearxNg,
  "retrieve": Retriever,
}


def _key(variable: str) -> str:
  value = os.environ.get(variable, "").strip()
  if not value:
    raise errors.UserError(
      f"google_search needs the environment variable {variable}, or another "
      "tools.google_backend"
    )
  return value


def _required(url: str, backend: str) -> str:
  if not url:
    raise errors.ConfigError(
      f"tools.google_url is empty: name the address of the {backend} service"
    )
  return url


def _read(
  asked: service.Service, convert: Callable[[], list[Found]]
) -> list[Found]:
  try:
    return convert()
  except (LookupError, TypeError, ValueError, AttributeError) as error:
    raise asked.malformed(error) from error


def _document(entry: Any) -> Found:
  """A passage of Search-R1's shape: title and text in one string."""
  document = entry.get("document", entry)
  title, _, text = str(document["contents"]).partition("\n")
  return Found(title=title.strip('" '), text=text)


def _grounded(answer: Any, top_k: int) -> list[Found]:
  candidate = answer["candidates"][0]
  parts = candidate["content"]["parts"]
  text = "".join(str(part.get("text", "")) for part in parts).encode("utf-8")
  metadata = candidate.get("groundingMetadata", {})
  sources = [
    Found(title=str(web.get("title", "")), text="", url=str(web["uri"]))
    for web in (chunk["web"] for chunk in metadata.get("groundingChunks", []))
  ][:top_k]
  supports = sorted(
    metadata.get("groundingSupports", []),
    key=lambda support: -int(support["segment"].get("endIndex", 0)),
  )
  for support in supports:  # from the end, so that offsets stay right
    end = int(support["segment"].get("endIndex", 0))
    cited = sorted(set(map(int, support.get("groundingChunkIndices", []))))
    marks = "".join(f"[{i + 1}]" for i in cited if i < len(sources))
    text = text[:end] + marks.encode() + text[end:]
  shown = text.decode("utf-8", "replace").strip()
  return [Found(title="", text=shown), *sources] if shown else []
