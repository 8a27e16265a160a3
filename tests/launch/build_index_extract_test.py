"""launch/build_index.py on what WikiExtractor makes of a Wikipedia dump."""

import json
import pathlib
import subprocess
import sys

from agentflow_jax.tools import bm25_index

_ROOT = pathlib.Path(__file__).parents[2]
_FILLER = "It is one of many places that have a page of their own."


def _article(number, title, *paragraphs):
  return {
    "id": str(number),
    "revid": "7",
    "url": f"https://en.wikipedia.org/wiki?curid={number}",
    "title": title,
    "text": "\n".join(paragraphs),
  }


def _extract(folder):
  """150 articles in two folders; the facts of one are far from its start."""
  articles = [
    _article(n, f"Village {n}", f"Village {n} is small.", _FILLER)
    for n in range(149)
  ]
  articles.append(
    _article(
      900,
      "Laos",
      "Laos is a country in Asia.",
      *[_FILLER] * 20,
      "The currency of Laos is the kip, first issued in 1952.",
    )
  )
  for name, part in (
    ("AA/wiki_00", articles[:80]),
    ("AA/wiki_01", articles[80:100]),
    ("AB/wiki_00", articles[100:]),
  ):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(article) for article in part]
    path.write_text("\n".join(lines) + "\n")


def test_an_extract_becomes_an_index_of_passages_that_are_found(tmp_path):
  _extract(tmp_path / "extract")
  done = subprocess.run(
    [
      *(sys.executable, str(_ROOT / "launch" / "build_index.py")),
      *(f"--corpus={tmp_path}/extract", f"--out={tmp_path}/index"),
      "--chunk_words=50",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  # 6 + 20 * 13 + 11 words of Laos are six passages of 50 at most.
  assert done.stdout.startswith("155 passages in ")
  index = bm25_index.Bm25Index.open(tmp_path / "index")
  assert len(index) == 155
  (best, *others) = index.search("currency of Laos kip", 5)
  assert best.passage.id == "900-5"
  assert best.passage.title == "Laos"
  assert best.passage.text.endswith("is the kip, first issued in 1952.")
  assert len(best.passage.text.split()) == 277 - 250
  (first, *_) = index.search("Village 123", 1)
  assert (first.passage.id, first.passage.title) == ("123-0", "Village 123")
  assert {hit.passage.id for hit in others} <= {
    *(f"900-{n}" for n in range(5)),
    *(f"{n}-0" for n in range(149)),
  }
