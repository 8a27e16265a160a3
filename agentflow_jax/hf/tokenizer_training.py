"""Trains a small Qwen-like tokenizer from texts.

Byte-level BPE behind Qwen2's pre-tokenizer, so that any text round-trips and
digits are single tokens; the three ChatML tokens come last; the chat template
adds no system message. The same texts give the same files in any process.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from agentflow_jax.core import errors
from agentflow_jax.hf import tokenizer as tokenizer_lib

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Qwen2's cut of text into words, single digits, punctuation and space.
_PATTERN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = (
  "{% for message in messages %}"
  "{{ '<|im_start|>' + message['role'] + '\\n' }}"
  "{{ message['content'] + '<|im_end|>\\n' }}"
  "{% endfor %}"
  "{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\\n' }}"
  "{% endif %}"
)
_CONFIG = {
  # Known to transformers 4 and 5.
  "tokenizer_class": "PreTrainedTokenizerFast",
  "eos_token": "<|im_end|>",
  "pad_token": "<|endoftext|>",
  "clean_up_tokenization_spaces": False,
  "model_max_length": 1_000_000,
}
MIN_VOCAB = 256 + len(SPECIAL_TOKENS)


def train_tokenizer(
  texts: Iterable[str],
  vocab_size: int,
  directory: str | pathlib.Path,
  phrases: Sequence[str] = (),
  words: Sequence[str] = (),
  ending_letters: int = 0,
) -> tokenizer_lib.HfTokenizer:
  """Learns merges and writes the tokenizer's files to `directory`.

  Args:
    texts: consumed once.
    vocab_size: ids in all, special ones included; fewer when the texts hold
      no more pairs to merge.
    directory: created if needed.
    phrases: texts that become one id each wherever they stand; the longest
      wins. They are ordinary text, not special.
    words: texts that become one id each where they are all there is between
      two cuts: a word with the space before it, or a part of a cut word.
    ending_letters: capitalised words that have more letters are cut before
      the last so many; 0 for no such cut.

  Raises:
    ConfigError: `vocab_size` has no room for the bytes, the special tokens and
      the phrases and words.
  """
  needed = MIN_VOCAB + len(phrases) + len(words)
  if vocab_size < needed:
    raise errors.ConfigError(
      f"vocab_size={vocab_size} is less than the {needed} ids that bytes, "
      "special tokens, phrases and words take"
    )
  backend = _empty_backend(ending_letters)
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size - len(SPECIAL_TOKENS) - len(phrases) - len(words),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer)
  backend = _with_words(backend, words)
  backend.add_tokens(
    [tokenizers.AddedToken(phrase, normalized=False) for phrase in phrases]
  )
  backend.add_special_tokens(
    [
      tokenizers.AddedToken(token, special=True, normalized=False)
      for token in SPECIAL_TOKENS
    ]
  )
  trained = tokenizer_lib.HfTokenizer(
    {
      tokenizer_lib.TOKENIZER_FILE: backend.to_str(pretty=True),
      tokenizer_lib.CONFIG_FILE: json.dumps(_CONFIG, indent=2) + "\n",
      tokenizer_lib.TEMPLATE_FILE: _CHAT_TEMPLATE,
    }
  )
  trained.save(directory)
  return trained


def _empty_backend(ending_letters: int) -> tokenizers.Tokenizer:
  """Byte-level BPE without merges."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.normalizer = normalizers.NFC()
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(
        tokenizers.Regex(_cut_names(ending_letters) + _PATTERN), "isolated"
      ),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  backend.decoder = decoders.ByteLevel()
  return backend


def _cut_names(ending_letters: int) -> str:
  """A first alternative of the pattern: the stem of a capitalised word."""
  if not ending_letters:
    return ""
  ending = rf"\p{{Ll}}{{{ending_letters}}}(?!\p{{L}})"
  return rf"[^\r\n\p{{L}}\p{{N}}]?\p{{Lu}}\p{{Ll}}*(?={ending})|"


def _with_words(
  backend: tokenizers.Tokenizer, words: Sequence[str]
) -> tokenizers.Tokenizer:
  """The tokenizer with an id for every word, found before any merge."""
  if not words:
    return backend
  to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  state = json.loads(backend.to_str())
  vocab = state["model"]["vocab"]
  for word in words:
    ((token, _),) = to_bytes.pre_tokenize_str(word)
    vocab.setdefault(token, len(vocab))
  state["model"]["ignore_merges"] = True
  return tokenizers.Tokenizer.from_str(json.dumps(state))
