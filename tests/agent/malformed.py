"""Texts that models write when they do not keep to the format."""

import random

PIECES = [
  *("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "<|endoftext|>"),
  *("Context:", "Sub-Goal:", "Tool Name:", "Justification:", "Conclusion:"),
  *("Wikipedia_Search_Tool", "STOP", "CONTINUE", "stop", "**", "##", "- "),
  *("```python\n", "```json\n", "```\n", "```", "\n", "\r\n", "\u2028", " "),
  *("execution = ", "tool.execute(", "execute(", "query=", ")", "(", ","),
  *('"', "'", '"""', "'''", "\\", "#", "{", "}", "[", "]", ":", "=", "+"),
  *('{"arguments": {"query": "x"}}', '{"stop_signal": true}', '"context"'),
  *(
    '"sub_goal"',
    '"tool_name"',
    "<answer>",
    "</answer>",
    "f'{x}'",
    "lambda:",
  ),
  *(
    "None",
    "1e999",
    "NaN",
    "0x1",
    "9" * 30,
    "\x00",
    "\ud800",
    "é",
    "：",
    ">",
  ),
]


def garbage(rng: random.Random) -> str:
  """Up to forty of the pieces that parsers look for, and other characters."""
  return "".join(
    rng.choice(PIECES) if rng.random() < 0.8 else _any_text(rng)
    for _ in range(rng.randint(0, 40))
  )


def damaged(rng: random.Random, text: str) -> str:
  """A good answer after a few accidents; at times it is still readable."""
  for _ in range(rng.randint(1, 3)):
    at, to = sorted(rng.randint(0, len(text)) for _ in range(2))
    text = rng.choice(
      (
        lambda at=at, text=text: text[:at],  # cut off
        lambda at=at, to=to, text=text: text[:at] + text[to:],
        lambda at=at, to=to, text=text: text[:to] + text[at:],  # said twice
        lambda at=at, text=text: text[:at] + rng.choice(PIECES) + text[at:],
        lambda at=at, text=text: text[:at] + _any_text(rng) + text[at:],
        lambda text=text: text.swapcase(),
      )
    )()
  return text


def _any_text(rng):
  """A few characters, mostly low ones, of all that there are."""
  return "".join(
    chr(rng.randrange(rng.choice((0x80, 0x800, 0x110000))))
    for _ in range(rng.randint(1, 6))
  )
