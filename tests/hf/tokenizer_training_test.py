"""Round trips, sizes, and the same files from any process."""

import functools
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_jax.core import errors
from agentflow_jax.core.messages import Message
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.hf import tokenizer_training

_RANDOM = random.Random(0)
_WORDS = [
  "".join(_RANDOM.choices("aeioulnrstmkv", k=_RANDOM.randint(2, 9)))
  for _ in range(600)
]
_TEXTS = [
  f"Question {i}: what is the currency of {' '.join(_WORDS[i : i + 9])}? é {i}"
  for i in range(400)
]
_SCRIPT = """
import sys
from agentflow_jax.hf import tokenizer_training
texts = sys.stdin.read().split("\\x00")
tokenizer_training.train_tokenizer(texts, 600, sys.argv[1])
assert "jax" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("trained")
  return path, tokenizer_training.train_tokenizer(iter(_TEXTS), 600, path)


def test_vocabulary_size_and_place_of_special_tokens(trained):
  _, tokenizer = trained
  assert tokenizer.vocab_size == 600
  assert tokenizer.eos_ids == (599, 597)
  assert tokenizer.pad_id == 597


def test_a_small_text_gives_fewer_ids_but_never_fails(tmp_path):
  tokenizer = tokenizer_training.train_tokenizer(["ab"], 5000, tmp_path)
  assert 259 <= tokenizer.vocab_size < 270
  assert tokenizer.decode(tokenizer.encode("any 文")) == "any 文"


def test_too_few_ids_is_a_config_error(tmp_path):
  with pytest.raises(errors.ConfigError, match="vocab_size=258"):
    tokenizer_training.train_tokenizer(_TEXTS, 258, tmp_path)


def test_merges_shorten_and_digits_stay_single(trained):
  _, tokenizer = trained
  text = "Question: what is the currency of"
  assert len(tokenizer.encode(text)) < len(text) / 3
  assert len(tokenizer.encode("1234567")) == 7


def test_the_template_is_plain_chatml_without_a_system_message(trained):
  _, tokenizer = trained
  start, end = 598, 599
  newline = tokenizer.encode("\n")
  assert tokenizer.render_chat([Message("user", "kip")]) == [
    start,
    *tokenizer.encode("user\nkip"),
    end,
    *newline,
    start,
    *tokenizer.encode("assistant\n"),
  ]


@functools.cache
def _shared():
  """One tokenizer for hypothesis, which can not take module fixtures."""
  with tempfile.TemporaryDirectory() as path:
    return tokenizer_training.train_tokenizer(_TEXTS, 600, path)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_round_trips_up_to_nfc(text):
  want = unicodedata.normalize("NFC", text)
  assert _shared().decode(_shared().encode(text)) == want


def test_another_process_and_hash_seed_give_the_same_files(trained, tmp_path):
  path, tokenizer = trained
  for seed in ("1", "2"):
    other = tmp_path / seed
    subprocess.run(
      [sys.executable, "-c", _SCRIPT, str(other)],
      input="\x00".join(_TEXTS),
      text=True,
      check=True,
      env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
    )
    for file in path.iterdir():
      assert file.read_bytes() == (other / file.name).read_bytes(), file.name
    read = tokenizer_lib.HfTokenizer.from_directory(other)
    assert read.encode(_TEXTS[0]) == tokenizer.encode(_TEXTS[0])


def test_a_phrase_is_one_id_and_ordinary_text(tmp_path):
  phrases = ["\nSub-Goal:", "\nSub-Goal: find the currency", " of the"]
  tokenizer = tokenizer_training.train_tokenizer(_TEXTS, 600, tmp_path, phrases)
  assert tokenizer.vocab_size == 600
  for phrase in phrases:
    assert len(tokenizer.encode(phrase)) == 1
  (longest,) = tokenizer.encode("\nSub-Goal: find the currency")
  assert longest in tokenizer.encode("x\nSub-Goal: find the currency of the y")
  for text in ("a of the\nSub-Goal: b", "of them", "Sub-Goal:\n", "é of thé"):
    assert tokenizer.decode(tokenizer.encode(text)) == text
  again = tokenizer_lib.HfTokenizer.from_directory(tmp_path)
  assert again.encode(_TEXTS[0] + phrases[1]) == (
    tokenizer.encode(_TEXTS[0] + phrases[1])
  )
  auto = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(
    str(tmp_path)
  )
  for text in (*phrases, _TEXTS[0] + phrases[1] + " y", "of them of the"):
    assert auto.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert auto.decode(tokenizer.encode(text)) == text


def test_phrases_need_room(tmp_path):
  with pytest.raises(errors.ConfigError, match="261 ids"):
    tokenizer_training.train_tokenizer(_TEXTS, 260, tmp_path, ["a b", "c d"])


def test_words_are_one_id_between_cuts_and_survive_the_file(tmp_path):
  words = [" Bogo", "ta", "os"]
  tokenizer = tokenizer_training.train_tokenizer(
    _TEXTS, 600, tmp_path, words=words, ending_letters=2
  )
  assert 590 < tokenizer.vocab_size <= 600
  decode = lambda ids: [tokenizer.decode([i]) for i in ids]
  assert decode(tokenizer.encode(" Bogota's Bogoos")) == [
    *(" Bogo", "ta", "'", "s"),
    *(" Bogo", "os"),
  ]
  # Inside of another word it is no word.
  assert " Bogo" not in decode(tokenizer.encode(" Bogotanova Bogo"))
  for text in (
    " Bogota",
    "Bogota",
    " BOGOTA",
    "élan Éland's",
    " Bog",
    "McEwan",
  ):
    assert tokenizer.decode(tokenizer.encode(text)) == text
  again = tokenizer_lib.HfTokenizer.from_directory(tmp_path)
  auto = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(
    str(tmp_path)
  )
  for text in (" Bogota's Bogoos", " Bogotanova", _TEXTS[0]):
    assert again.encode(text) == tokenizer.encode(text)
    assert auto.encode(text, add_special_tokens=False) == tokenizer.encode(text)


def test_words_need_room(tmp_path):
  with pytest.raises(errors.ConfigError, match="261 ids"):
    tokenizer_training.train_tokenizer(
      _TEXTS, 260, tmp_path, words=[" a", " b"]
    )
