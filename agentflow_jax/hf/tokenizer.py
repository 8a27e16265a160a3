"""HfTokenizer: a model directory's tokenizer behind the core Protocol.

Flow: tokenizer.json -> two encoders, of which the text encoder reads special
tokens as ordinary characters; chat template -> control pieces, whose special
tokens alone become special ids. Text between two special ids is encoded as
one stretch, as transformers does, so harmless conversations get the same ids
there and here.

Needs `tokenizers` and `jinja2`, not transformers, torch or jax. It does not
cut prompts to a length and adds no bos token.
"""

import json
import pathlib
import re
from collections.abc import Sequence

import tokenizers

from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.hf import chat_template

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"
# Kept as they are from load to save, for readers other than us.
_COMPANIONS = (
  "vocab.json",
  "merges.txt",
  "added_tokens.json",
  "special_tokens_map.json",
)
_END_OF_TURN = "<|im_end|>"
_END_OF_TEXT = "<|endoftext|>"

# A special id, or a stretch of text made of control text and contents.
_Run = int | tuple[chat_template.Piece, ...]


class HfTokenizer:
  """Byte-level BPE of the Qwen family, with its chat template.

  Example:
    tokenizer = HfTokenizer.from_directory("Qwen2.5-0.5B-Instruct")
    ids = tokenizer.render_chat([Message("user", "2 + 2?")])
  """

  def __init__(self, files: dict[str, str], eos_ids: Sequence[int] = ()):
    """
    Args:
      files: name -> text of tokenizer.json, tokenizer_config.json and, where
        present, chat_template.jinja and companions.
      eos_ids: further ids that end a turn, from a generation config.

    Raises:
      CheckpointError: a file is missing or unusable.
    """
    for name in (TOKENIZER_FILE, CONFIG_FILE):
      if name not in files:
        raise errors.CheckpointError(f"{name}: no such file")
    self._files = dict(files)
    config = _parse(CONFIG_FILE, files[CONFIG_FILE])
    self._text = _backend(files[TOKENIZER_FILE])
    self._eos_ids = self._find_eos(config, eos_ids)
    self._pad_id = self._find_pad(config)
    self._protect((*self._eos_ids, self._pad_id))
    self._text.encode_special_tokens = True
    self._special = self._special_tokens()
    self._template = chat_template.ChatTemplate(
      _template_source(files, config), _named_tokens(config)
    )
    self._runs: dict[tuple[tuple[str, bool], ...], tuple[_Run, ...]] = {}

  @classmethod
  def from_directory(cls, directory: str | pathlib.Path) -> "HfTokenizer":
    """Reads the tokenizer of a model directory.

    Raises:
      CheckpointError: a file is missing or unusable.
    """
    directory = pathlib.Path(directory)
    try:
      files = {
        name: (directory / name).read_text(encoding="utf-8")
        for name in (TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE, *_COMPANIONS)
        if (directory / name).exists()
      }
      eos_ids = _generation_eos(directory / GENERATION_FILE)
      return cls(files, eos_ids)
    except (OSError, UnicodeDecodeError) as error:
      raise errors.CheckpointError(f"{directory}: {error}") from error
    except errors.CheckpointError as error:
      raise errors.CheckpointError(f"{directory}: {error}") from error

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes what `from_directory` and transformers read."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    generation = {
      "eos_token_id": list(self.eos_ids),
      "pad_token_id": self.pad_id,
    }
    files = self._files | {
      GENERATION_FILE: json.dumps(generation, indent=2) + "\n"
    }
    for name, text in files.items():
      (directory / name).write_text(text, encoding="utf-8")

  @property
  def vocab_size(self) -> int:
    """Number of ids, special ones included; a model may have more rows."""
    return self._text.get_vocab_size(with_added_tokens=True)

  @property
  def eos_ids(self) -> tuple[int, ...]:
    return self._eos_ids

  @property
  def pad_id(self) -> int:
    return self._pad_id

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; never a special id. Lone surrogates become "?"."""
    # Alone, `encode` is twice as fast as a batch of one, which wakes a pool.
    return self._text.encode(_valid(text), add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of many texts, in parallel where tokenizers may."""
    encodings = self._text.encode_batch_fast(
      [_valid(text) for text in texts], add_special_tokens=False
    )
    return [encoding.ids for encoding in encodings]

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; special ids and ids without a token are left out."""
    return self._text.decode(list(ids), skip_special_tokens=True)

  def render_chat(self, messages: Sequence[messages_lib.Message]) -> list[int]:
    """Prompt ids up to and including the assistant header.

    Raises:
      ValueError: a role other than system, user and assistant.
      CheckpointError: the chat template can not show these messages.
    """
    shape = tuple((m.role, bool(m.content)) for m in messages)
    if shape not in self._runs:
      self._runs[shape] = self._split(self._template.pieces(shape))
    runs = self._runs[shape]
    ids: list[int] = []
    for run in runs:
      if isinstance(run, int):
        ids.append(run)
        continue
      stretch = (
        messages[piece].content if isinstance(piece, int) else piece
        for piece in run
      )
      ids.extend(self.encode("".join(stretch)))
    return ids

  def _split(self, pieces: tuple[chat_template.Piece, ...]) -> tuple[_Run, ...]:
    """Cuts control text at its special tokens."""
    by_length = sorted(self._special, key=len, reverse=True)
    pattern = "(" + "|".join(map(re.escape, by_length)) + ")"
    runs: list[_Run] = []
    stretch: list[chat_template.Piece] = []
    for piece in pieces:
      if isinstance(piece, int):
        stretch.append(piece)
        continue
      for i, part in enumerate(re.split(pattern, piece)):
        if i % 2:
          if stretch:
            runs.append(tuple(stretch))
          stretch = []
          runs.append(self._special[part])
        elif part:
          stretch.append(part)
    if stretch:
      runs.append(tuple(stretch))
    return tuple(runs)

  def _find_eos(self, config: dict, eos_ids: Sequence[int]) -> tuple[int, ...]:
    names = (_named_tokens(config).get("eos_token"), _END_OF_TURN, _END_OF_TEXT)
    found = list(eos_ids)
    for index in found:
      if self._text.id_to_token(index) is None:
        raise errors.CheckpointError(
          f"{GENERATION_FILE}: eos_token_id {index} is not in the vocabulary"
        )
    found += [
      index
      for index in (self._text.token_to_id(name) for name in names if name)
      if index is not None
    ]
    if not found:
      raise errors.CheckpointError(f"{CONFIG_FILE}: no end-of-sequence token")
    return tuple(dict.fromkeys(found))

  def _find_pad(self, config: dict) -> int:
    for name in (_named_tokens(config).get("pad_token"), _END_OF_TEXT):
      index = self._text.token_to_id(name) if name else None
      if index is not None:
        return index
    return self._eos_ids[-1]

  def _protect(self, ids: Sequence[int]) -> None:
    """Makes `ids` special even if the file calls them ordinary."""
    self._text.add_special_tokens(
      [
        tokenizers.AddedToken(
          self._text.id_to_token(index), special=True, normalized=False
        )
        for index in ids
      ]
    )

  def _special_tokens(self) -> dict[str, int]:
    special = {}
    for index, token in self._text.get_added_tokens_decoder().items():
      if not token.special:
        continue
      if token.lstrip or token.rstrip or token.single_word:
        raise errors.CheckpointError(
          f"{TOKENIZER_FILE}: special token {token.content} changes its "
          "neighbours (lstrip, rstrip or single_word), which is not supported"
        )
      if index in self.encode(token.content):
        raise errors.CheckpointError(
          f"{TOKENIZER_FILE}: special token {token.content!r} (id {index}) is "
          "also what ordinary text encodes to"
        )
      special[token.content] = index
    return special


def _backend(text: str) -> tokenizers.Tokenizer:
  try:
    backend = tokenizers.Tokenizer.from_str(text)
  # The Rust binding raises bare Exception for a bad file.
  except Exception as error:  # noqa: BLE001
    raise errors.CheckpointError(f"{TOKENIZER_FILE}: {error}") from error
  backend.no_padding()
  backend.no_truncation()
  return backend


def _parse(name: str, text: str) -> dict:
  try:
    value = json.loads(text)
  except ValueError as error:
    raise errors.CheckpointError(f"{name}: not JSON ({error})") from error
  if not isinstance(value, dict):
    raise errors.CheckpointError(f"{name}: not a JSON object")
  return value


def _generation_eos(file: pathlib.Path) -> tuple[int, ...]:
  """eos_token_id of a generation config, which need not exist."""
  if not file.exists():
    return ()
  value = _parse(file.name, file.read_text(encoding="utf-8"))
  value = value.get("eos_token_id")
  values = value if isinstance(value, list) else [value]
  return tuple(index for index in values if isinstance(index, int))


def _named_tokens(config: dict) -> dict[str, str]:
  """The *_token entries, each a string or {"content": string}."""
  named = {}
  for key, value in config.items():
    if isinstance(value, dict):
      value = value.get("content")
    if key.endswith("_token") and isinstance(value, str):
      named[key] = value
  return named


def _template_source(files: dict[str, str], config: dict) -> str:
  """Of the file, else of tokenizer_config.json (one, or a list of named)."""
  if TEMPLATE_FILE in files:
    return files[TEMPLATE_FILE]
  source = config.get("chat_template")
  if isinstance(source, list):
    source = next(
      (t["template"] for t in source if t.get("name") == "default"), None
    )
  if not isinstance(source, str):
    raise errors.CheckpointError(f"{CONFIG_FILE}: no chat template")
  return source


def _valid(text: str) -> str:
  """`text` without lone surrogates, which no encoder accepts."""
  if text.isascii():
    return text
  return text.encode("utf-8", "replace").decode("utf-8")
