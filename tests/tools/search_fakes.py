"""Answers of the services that search tools ask, for `local_server.serving`."""

import json
import urllib.parse

DOCUMENT = {"id": "1", "contents": '"Laos"\nA country.'}
GEMINI_TEXT = "\u00c9: the kip."


def query(handler):
  """The query string of a request."""
  return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(handler.path).query))


def wiki(handler):
  """MediaWiki: two pages for "kip", the answer at the end of one of them."""
  asked = query(handler)
  if asked.get("list") == "search":
    found = [{"pageid": 7}, {"pageid": 8}] if "kip" in asked["srsearch"] else []
    handler.send_json({"query": {"search": found}})
  else:
    page = asked["pageids"]
    filler = "Rivers and hills. " * 300
    text = filler + "The currency is the kip." if page == "7" else filler
    handler.send_json(
      {"query": {"pages": [{"title": f"Page {page}", "extract": text}]}}
    )


def embedding(handler):
  """Vectors that count the letters k and l."""
  body = json.loads(handler.server.requests[-1][2])
  rows = [[t.count("k"), t.count("l"), 1.0] for t in body["input"]]
  data = [{"index": i, "embedding": row} for i, row in enumerate(rows)]
  handler.send_json({"data": data[::-1]})


# What each backend of google_search answers.
GOOGLE = {
  "programmable_search": {
    "items": [
      {"title": "Laos", "link": "https://a.example/", "snippet": "A\ncountry."},
      {"title": "Kip", "link": "https://b.example/"},
    ]
  },
  "gemini": {
    "candidates": [
      {
        "content": {"parts": [{"text": GEMINI_TEXT}]},
        "groundingMetadata": {
          "groundingChunks": [
            {"web": {"uri": "https://a.example/", "title": "a"}}
          ],
          "groundingSupports": [
            {
              "segment": {"endIndex": len(GEMINI_TEXT.encode())},
              "groundingChunkIndices": [0, 7],
            }
          ],
        },
      }
    ]
  },
  "searxng": {
    "results": [{"title": "T", "url": "https://a.example/", "content": None}]
    * 9
  },
  "retrieve": {"result": [[{"document": DOCUMENT, "score": 1.5}] * 3]},
}
