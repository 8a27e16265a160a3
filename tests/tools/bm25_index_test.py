"""The BM25 index: scores, ties, files, damage, and a real corpus."""

import concurrent.futures
import gzip
import json
import math
import os
import pathlib
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from agentflow_jax.core import errors
from agentflow_jax.tools import bm25_index, index_files

_settings = hypothesis.settings(deadline=None, max_examples=50)

_CORPORA = [
  parent / "shared/data/wiki_passages/corpus.jsonl.gz"
  for parent in pathlib.Path(__file__).parents[2:4]
]

LAOS = bm25_index.Passage(
  id="laos", title="Laos", text="Laos is a country. Its currency is the kip."
)
KIP = bm25_index.Passage(
  id="kip", title="Lao kip", text="The kip is the currency of Laos."
)
WHO = bm25_index.Passage(
  id="who", title="The Who", text="A rock band.\nFormed in London."
)
SAO = bm25_index.Passage(
  id="sao", title="S\u00e3o Tom\u00e9", text="Capital; currency: dobra."
)


def _index(tmp_path, *passages):
  bm25_index.build(passages, tmp_path / "index")
  return bm25_index.Bm25Index.open(tmp_path / "index")


def _ids(index, query, top_k=10):
  return [hit.passage.id for hit in index.search(query, top_k)]


def test_words_fold_case_and_compatibility_forms():
  assert bm25_index.words("The F.I.R. (album)_2") == [
    *["the", "f", "i", "r", "album", "2"]
  ]
  assert bm25_index.words("S\u00c3O Tome\u0301 \uff21") == [
    *["s\u00e3o", "tom\u00e9", "a"]
  ]
  assert bm25_index.words("... \u200b --") == []


def test_score_is_lucenes_bm25_by_hand(tmp_path):
  index = _index(
    tmp_path,
    bm25_index.Passage(id="1", title="", text="kip kip laos"),
    bm25_index.Passage(id="2", title="", text="laos"),
  )
  (hit,) = index.search("kip", 5)
  # N = 2, df = 1, tf = 2, length 3 against a mean of 2.
  idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
  expected = idf * 2 / (2 + 1.5 * (0.25 + 0.75 * 3 / 2))
  assert hit.passage.id == "1"
  assert hit.score == pytest.approx(expected, rel=1e-6)
  (twice,) = index.search("kip Kip", 5)
  assert twice.score == pytest.approx(2 * expected, rel=1e-6)


def test_titles_count_more_and_no_word_is_too_common(tmp_path):
  index = _index(tmp_path, LAOS, KIP, WHO, SAO)
  assert len(index) == 4
  assert _ids(index, "laos")[0] == "laos"
  assert _ids(index, "lao kip")[0] == "kip"
  assert _ids(index, "the who")[0] == "who"
  assert _ids(index, "SA\u0303O TOME\u0301") == ["sao"]
  assert index.search("laos", 1)[0].passage == LAOS


def test_one_title_outweighs_two_words_of_text(tmp_path):
  index = _index(
    tmp_path,
    bm25_index.Passage(id="1", title="Money", text="The kip, a kip."),
    bm25_index.Passage(id="2", title="Kip", text="It is money too."),
  )
  assert _ids(index, "kip") == ["2", "1"]


def test_words_nobody_has_find_nothing(tmp_path):
  index = _index(tmp_path, LAOS, KIP)
  assert index.search("vientiane", 3) == []
  assert index.search("", 3) == []
  assert index.search("?!", 3) == []
  assert all(hit.score > 0 for hit in index.search("the currency x", 9))


def test_ties_come_in_the_order_of_ids_and_top_k_cuts(tmp_path):
  passages = [
    bm25_index.Passage(id=f"p{i:02}", title="Same", text="same words")
    for i in range(40)
  ]
  index = _index(tmp_path, *reversed(passages))
  assert _ids(index, "same", 7) == [f"p{i:02}" for i in range(7)]
  assert len(_ids(index, "same", 1000)) == 40
  with pytest.raises(ValueError, match="top_k is 0"):
    index.search("same", 0)


def test_the_files_do_not_depend_on_order_or_hash_seed(tmp_path):
  build = (
    "import sys; from agentflow_jax.tools import bm25_index as b;"
    "p = [b.Passage(id=str(i), title=f'T{i}', text=f'w{i % 3} x') "
    "for i in range(20)];"
    "b.build(p if sys.argv[2] == '1' else p[::-1], sys.argv[1])"
  )
  manifests = []
  for seed in ("1", "2"):
    target = tmp_path / seed
    subprocess.run(
      [sys.executable, "-c", build, target, seed],
      check=True,
      env={**os.environ, "PYTHONHASHSEED": seed},
    )
    manifests.append((target / index_files.MANIFEST).read_text())
  assert manifests[0] == manifests[1]


def test_the_order_of_query_words_changes_no_bit(tmp_path):
  index = _index(tmp_path, LAOS, KIP, WHO, SAO)
  query = ["the", "currency", "of", "laos", "is", "a", "kip", "in", "london"]
  forward = index.search(" ".join(query), 4)
  assert forward == index.search(" ".join(reversed(query)), 4)


@_settings
@hypothesis.given(
  st.lists(st.text("ab c", max_size=12), min_size=1, max_size=30),
  st.text("abc ", max_size=10),
  st.integers(1, 5),
)
def test_agrees_with_a_plain_sort_of_all_scores(
  tmp_path_factory, texts, query, top_k
):
  hypothesis.assume(any(text.strip() for text in texts))
  index = _index(
    tmp_path_factory.mktemp("bm25"),
    *(
      bm25_index.Passage(id=f"{i:03}", title="", text=text)
      for i, text in enumerate(texts)
    ),
  )
  everything = index.search(query, len(texts))
  in_order = sorted(everything, key=lambda hit: (-hit.score, hit.passage.id))
  assert everything == in_order
  assert index.search(query, top_k) == everything[:top_k]
  found = {int(hit.passage.id) for hit in everything}
  shares = {
    i for i, text in enumerate(texts) if set(text.split()) & set(query.split())
  }
  assert found == shares


def test_equals_the_bm25s_library(tmp_path):
  bm25s = pytest.importorskip("bm25s")
  rng = np.random.default_rng(0)
  texts = [
    " ".join(f"w{int(w)}" for w in rng.zipf(1.5, int(rng.integers(1, 60))))
    for _ in range(300)
  ]
  index = _index(
    tmp_path,
    *(
      bm25_index.Passage(id=f"{i:04}", title="", text=text)
      for i, text in enumerate(texts)
    ),
  )
  theirs = bm25s.BM25(method="lucene", k1=bm25_index.K1, b=bm25_index.B)
  theirs.index([text.split() for text in texts], show_progress=False)
  for query in ("w1", "w1 w2 w3", "w7 w1 w40 w2", texts[5]):
    expected_N = theirs.get_scores(query.split())
    hits = index.search(query, len(texts))
    assert len(hits) == np.count_nonzero(expected_N)
    for hit in hits:
      wanted = expected_N[int(hit.passage.id)]
      assert hit.score == pytest.approx(float(wanted), rel=1e-5)


def test_bad_passages_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="no word"):
    _index(tmp_path)
  with pytest.raises(errors.UserError, match="no word"):
    _index(tmp_path, bm25_index.Passage(id="1", title="?", text="!"))
  with pytest.raises(errors.UserError, match="the id 'laos'"):
    _index(tmp_path, LAOS, KIP, LAOS)
  assert not list(tmp_path.iterdir())


def test_text_survives_the_disk(tmp_path):
  odd = bm25_index.Passage(
    id='q"\\\n\u00e9', title="T\u2028\x00", text="word \ud83d half \u4e2d"
  )
  index = _index(tmp_path, odd, LAOS)
  (hit,) = index.search("word", 1)
  assert hit.passage.id == odd.id
  assert hit.passage.title == odd.title
  assert hit.passage.text == "word ? half \u4e2d"


def test_rebuilding_replaces_and_leaves_nothing_behind(tmp_path):
  old = _index(tmp_path, LAOS)
  new = _index(tmp_path, KIP)
  assert _ids(new, "currency") == ["kip"]
  assert _ids(old, "currency") == ["laos"]  # still mapped
  assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_many_builders_of_one_directory_leave_one_whole_index(tmp_path):
  with concurrent.futures.ThreadPoolExecutor(4) as threads:
    list(threads.map(lambda _: _build_one(tmp_path / "index"), range(40)))
  index = bm25_index.Bm25Index.open(tmp_path / "index")
  assert _ids(index, "currency") == ["laos"]
  assert [path.name for path in tmp_path.iterdir()] == ["index"]


def _build_one(directory):
  bm25_index.build([LAOS], directory)


def test_a_failed_build_keeps_the_old_index(tmp_path, monkeypatch):
  _index(tmp_path, LAOS)

  def no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(bm25_index.np, "save", no_space)
  with pytest.raises(OSError, match="No space"):
    bm25_index.build([KIP], tmp_path / "index")
  monkeypatch.undo()
  index = bm25_index.Bm25Index.open(tmp_path / "index")
  assert _ids(index, "currency") == ["laos"]
  assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_somebody_elses_directory_is_never_replaced(tmp_path):
  (tmp_path / "index").mkdir()
  (tmp_path / "index" / "thesis.txt").write_text("years of work")
  with pytest.raises(errors.UserError, match="not an index"):
    bm25_index.build([LAOS], tmp_path / "index")
  with pytest.raises(errors.UserError, match="not an index"):
    bm25_index.build([LAOS], tmp_path / "index" / "thesis.txt")
  assert (tmp_path / "index" / "thesis.txt").read_text() == "years of work"


def test_a_missing_index_says_what_to_do(tmp_path):
  with pytest.raises(errors.UserError) as caught:
    bm25_index.Bm25Index.open(tmp_path / "nowhere")
  message = str(caught.value)
  assert "nowhere: there is none" in message
  assert "tools.search_index_dir" in message
  assert "\n" not in message


def _flip(data):
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


_DAMAGES = {
  "one bit": _flip,
  "cut": lambda data: data[: len(data) // 2],
  "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", [*_DAMAGES, "gone"])
@pytest.mark.parametrize(
  "name",
  [
    "manifest.json",
    "passages.jsonl",
    "terms.txt",
    "passage_starts_N.npy",
    "posting_starts_V.npy",
    "postings_P.npy",
    "scores_P.npy",
  ],
)
def test_any_damage_is_refused(tmp_path, name, damage):
  _index(tmp_path, LAOS, KIP)
  path = tmp_path / "index" / name
  if damage == "gone":
    path.unlink()
  else:
    path.write_bytes(_DAMAGES[damage](path.read_bytes()))
  with pytest.raises(errors.UserError, match="^index .*index_dir at one$"):
    bm25_index.Bm25Index.open(tmp_path / "index")


def test_an_index_of_another_version_is_refused(tmp_path):
  _index(tmp_path, LAOS)
  path = tmp_path / "index" / index_files.MANIFEST
  manifest = json.loads(path.read_text())
  path.write_text(json.dumps({**manifest, "version": 2}))
  with pytest.raises(errors.UserError, match="'version': 2.*'version': 1"):
    bm25_index.Bm25Index.open(tmp_path / "index")


@pytest.mark.slow
def test_finds_titles_in_a_real_corpus(tmp_path):
  corpus = next((path for path in _CORPORA if path.exists()), None)
  if corpus is None:
    pytest.skip("no shared/data/wiki_passages beside the repository")
  with gzip.open(corpus, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
  index = _index(
    tmp_path,
    *(
      bm25_index.Passage(id=row["id"], title=row["title"], text=row["text"])
      for row in rows
    ),
  )
  assert len(index) == len(rows) == 55_734
  asked = rows[::500]
  found = sum(
    any(
      hit.passage.title == row["title"]
      for hit in index.search(f"{row['title']} {row['text'][:80]}", 3)
    )
    for row in asked
  )
  assert found / len(asked) > 0.95
