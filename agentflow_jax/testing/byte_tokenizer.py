"""ByteTokenizer: a Tokenizer without a vocabulary file, for tests.

Ids 0-255 are the bytes of the UTF-8 text, then come the control tokens:
pad 256, `<|im_end|>` 257 (ends an assistant turn), `<|im_start|>` 258.
`render_chat` is ChatML without a default system message:

  <|im_start|>user\\nQuestion: 2+2?<|im_end|>\\n<|im_start|>assistant\\n

It does not compress (one id per byte), so keep test prompts short.
"""

from collections.abc import Sequence

from agentflow_jax.core import messages as messages_lib

PAD_ID = 256
IM_END_ID = 257
IM_START_ID = 258
# Ids 259-263 are unused; a multiple of 8 shards over a tensor axis.
VOCAB_SIZE = 264


class ByteTokenizer:
  """Bytes in, bytes out; implements core `Tokenizer`.

  Example: `ByteTokenizer().encode("Hi")` is `[72, 105]`.
  """

  @property
  def vocab_size(self) -> int:
    return VOCAB_SIZE

  @property
  def eos_ids(self) -> tuple[int, ...]:
    return (IM_END_ID,)

  @property
  def pad_id(self) -> int:
    return PAD_ID

  def encode(self, text: str) -> list[int]:
    """One id per UTF-8 byte; "<|im_end|>" in `text` is ten plain bytes."""
    return list(text.encode("utf-8", errors="replace"))

  def decode(self, ids: Sequence[int]) -> str:
    """Text of the byte ids; control ids left out, broken UTF-8 replaced."""
    return bytes(i for i in ids if i < PAD_ID).decode("utf-8", "replace")

  def render_chat(self, messages: Sequence[messages_lib.Message]) -> list[int]:
    """Prompt ids of `messages`, up to and with the assistant header."""
    ids = []
    for message in messages:
      ids.append(IM_START_ID)
      ids += self.encode(f"{message.role}\n")
      ids += self.encode(message.content)
      ids.append(IM_END_ID)
      ids += self.encode("\n")
    ids.append(IM_START_ID)
    ids += self.encode("assistant\n")
    return ids
