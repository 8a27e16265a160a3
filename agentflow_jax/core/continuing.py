"""Prompts that go on with a begun answer: messages to ids, or to one text.

An answer that grows by pieces (agent/monolithic.py) is kept token for token:
the chat is rendered once, sampled pieces keep their ids, and what is put in
between is tokenised by itself. So the ids of a later prompt begin with those
of an earlier prompt and its completion, whatever the tokenizer would have
merged, and no text of a tool becomes a control token.
"""

from collections.abc import Sequence

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import protocols

# The role of text that is put into an answer before the answer goes on.
OBSERVATION = "observation"


def begun_answer(
  messages: Sequence[messages_lib.Message],
) -> tuple[Sequence[messages_lib.Message], Sequence[messages_lib.Message]]:
  """The chat, and the begun answer at its end (empty in most prompts).

  The latter is all messages of "assistant" and "observation" at the end.
  """
  end = len(messages)
  while end and messages[end - 1].role in ("assistant", OBSERVATION):
    end -= 1
  return messages[:end], messages[end:]


def prompt_ids(
  tokenizer: protocols.Tokenizer, messages: Sequence[messages_lib.Message]
) -> list[int]:
  """The prompt; of a chat without a begun answer it is `render_chat`'s.

  Raises: what the tokenizer's `render_chat` does.
  """
  chat, begun = begun_answer(messages)
  ids = tokenizer.render_chat(chat)
  for piece in begun:
    ids.extend(piece.token_ids or tokenizer.encode(piece.content))
  return ids


def last_text(messages: Sequence[messages_lib.Message]) -> str | None:
  """The last user message and the answer begun behind it; None without one."""
  chat, begun = begun_answer(messages)
  asked = [message.content for message in chat if message.role == "user"]
  if not asked:
    return None
  if not begun:
    return asked[-1]
  return f"{asked[-1]}\n{''.join(piece.content for piece in begun)}"
