"""Texts into passages, whatever the script, and their order."""

import pytest

from agentflow_jax.tools import passages


def test_chunks_overlap_and_lose_nothing():
  assert passages.chunk("a b c d", words=3, overlap=1) == ["a b c", "c d"]
  assert passages.chunk(" ") == []
  text = " ".join(map(str, range(1000)))
  chunks = passages.chunk(text)
  assert {w for c in chunks for w in c.split()} == set(text.split())
  assert all(len(c.split()) <= passages.CHUNK_WORDS for c in chunks)
  assert chunks[0].split()[-20:] == chunks[1].split()[:20]
  with pytest.raises(ValueError, match="overlap"):
    passages.chunk("a", words=3, overlap=3)


def _chunked_plainly(text, words, overlap):
  found = text.split()
  starts = range(0, max(1, len(found) - overlap), words - overlap)
  return [" ".join(found[at : at + words]) for at in starts if found]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 19, 20, 21, 401])
@pytest.mark.parametrize(
  ("words", "overlap"), [(3, 1), (3, 0), (4, 3), (20, 2)]
)
def test_words_of_prose_are_cut_by_their_number(count, words, overlap):
  text = " \n".join(f"{n}w" for n in range(count))
  expected = _chunked_plainly(text, words, overlap)
  assert passages.chunk(text, words, overlap) == expected


@pytest.mark.parametrize(
  "text",
  ["".join(chr(0x4E00 + n % 20_000) for n in range(20_000)),
   "".join(f"{n:05}," for n in range(4000)),
   " ".join(f"{n:0150}" for n in range(200)),
   " ".join([*map(str, range(400)), "".join(map(str, range(400, 2000)))] * 2)],
  ids=["chinese", "data", "long words", "both"],
)  # fmt: skip
def test_no_passage_is_long_and_no_character_is_lost(text):
  chunks = passages.chunk(text)
  assert max(map(len, chunks)) <= passages.CHUNK_CHARS
  assert len(chunks) < 2 * len(text) / passages.CHUNK_CHARS + 2
  at, bare = 0, "".join(text.split())
  for chunk in chunks:
    piece = "".join(chunk.split())
    found = bare.find(piece, max(0, at - passages.CHUNK_CHARS))
    assert 0 <= found <= at, "a gap"
    at = found + len(piece)
  assert at == len(bare)
  assert all(" " in text or " " not in chunk for chunk in chunks)


def test_a_book_is_cut_into_so_many_passages(monkeypatch):
  monkeypatch.setattr(passages, "MAX_CHUNKS", 3)
  chunks = passages.chunk("a b c d e f g h", words=2, overlap=1)
  assert chunks == ["a b", "b c", "c d"]


def test_the_lexical_order_puts_shared_words_first():
  texts = ["nothing here", "the kip of Laos", "the capital", "Laos"]
  assert passages.lexical_order("kip in Laos", texts, 2) == [1, 3]
  assert passages.lexical_order("?", texts, 9) == [0, 1, 2, 3]
