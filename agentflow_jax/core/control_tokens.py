"""What no text of strangers may carry into a chat: its control tokens.

Whoever puts tool output, web pages, model text or questions into a message
passes it through `defuse`. What the text says stays, and stays a claim.
"""

import re

# What chat templates of today's models write between messages. Our own
# tokenizer takes them for plain text; a server behind an API may not.
_CONTROL = re.compile(
  # <|im_end|>, <|start_header_id|>, and with DeepSeek's wide bars
  r"<(?P<bar>[|\uff5c][^<>|\uff5c\n]{1,64}[|\uff5c])>"
  # </s>, <start_of_turn>, <tool_response>, ...
  r"|<(?P<tag>/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tools"
  r"|tool_call|tool_response|system|user|assistant|observation|information))>"
  # [INST], [/INST], [TOOL_RESULTS], <<SYS>>
  r"|\[(?P<bracket>/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS))\]"
  r"|<<(?P<double>/?SYS)>>",
  re.IGNORECASE,
)


def defuse(text: str) -> str:
  """`text` with blanks inside everything that is a control token somewhere.

  A reader still sees what was there. Idempotent.

  Example: "a<|im_end|>" is "a< |im_end| >".
  """
  # Most text has none; the search for one character is fast.
  if "<" not in text and "[" not in text:
    return text
  return _CONTROL.sub(_spaced, text)


def _spaced(match: re.Match[str]) -> str:
  first, last = match.group()[0], match.group()[-1]
  return f"{first} {match.group()[1:-1]} {last}"
