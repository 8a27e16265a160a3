"""How many tokens a text has, where no tokenizer is at hand."""

_BYTES_PER_TOKEN = 4


def estimate_tokens(text: str) -> int:
  """A quarter of its UTF-8 bytes, rounded up: what English text takes.

  For agents of APIs and rules alone, whose budgets in tokens bound prompts
  that nobody here encodes.

  Example: estimate_tokens("Vientiane") is 3.
  """
  return -(-len(text.encode("utf-8", errors="replace")) // _BYTES_PER_TOKEN)
