"""Memory: what happened in an episode so far, as the prompts show it.

One per episode, append-only, built from the finished turns:

  Turn 1: Wikipedia_Search_Tool | Laos | find the currency
  Result: Laos: Laos is a country in Asia. Its currency is the kip.
  Verdict: CONTINUE

The full style also has a `Command:` line before each result and the
verifier's reason behind the verdict. `add` never changes an entry, so within
the token budget the text of a longer memory starts with the text of a shorter
one, and a sampler can keep its KV prefix.

Over the budget, results are cut in the middle: the oldest first and by
halves, so that what was cut once stays the same text for some turns. When
every result is at its shortest, the oldest turns are left out.

What this does not do: decide what matters. A result that should survive must
be in a later turn's context.
"""

import dataclasses
from collections.abc import Callable, Sequence

from agentflow_jax.agent import commands, quoting
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

COMPACT = "compact"
FULL = "full"

# Tokens of a text; at most one per UTF-8 byte, as with byte-level tokenizers.
CountTokens = Callable[[str], int]

# A turn's own lines are bounded whatever the modules wrote.
_MAX_NAME_CHARS = 100
_MAX_FIELD_CHARS = 500
_MAX_COMMAND_CHARS = 1000
_MAX_REASON_CHARS = 300
# What cutting leaves of a result before the turn itself is left out.
_SHORTEST_RESULT_CHARS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
  """One turn, bounded and neutralised; `verdict` is None while it is open."""

  headline: str
  commands: tuple[str, ...]
  results: tuple[str, ...]
  verdict: trajectory_lib.Verdict | None
  # Its lines by style: every module of every later turn asks for them.
  texts: dict[str, str] = dataclasses.field(
    default_factory=dict, compare=False, repr=False
  )


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
  """The turns so far, oldest first.

  Example: `Memory().add(turn)` is a new memory; the old one is unchanged.
  """

  entries: tuple[Entry, ...] = ()

  def add(self, turn: trajectory_lib.Turn) -> "Memory":
    """This memory and a finished turn."""
    return self.add_open(
      index=turn.index,
      decision=turn.decision,
      calls=turn.calls,
      results=turn.results,
      verdict=turn.verdict,
    )

  def closed(self, verdict: trajectory_lib.Verdict) -> "Memory":
    """This memory, whose last turn was open, with that turn's verdict."""
    last = dataclasses.replace(self.entries[-1], verdict=verdict, texts={})
    return Memory((*self.entries[:-1], last))

  def add_open(
    self,
    *,
    index: int,
    decision: trajectory_lib.Decision | trajectory_lib.ParseFailure,
    calls: Sequence[tool_lib.ToolCall],
    results: Sequence[tool_lib.ToolResult],
    verdict: trajectory_lib.Verdict | None = None,
  ) -> "Memory":
    """This memory and a turn; without a verdict it is what verifiers see."""
    if isinstance(decision, trajectory_lib.ParseFailure):
      headline = "unreadable plan"
      shown = (f"error ({decision.reason})",)
    else:
      headline = " | ".join(
        (
          quoting.one_line(decision.tool_name, _MAX_NAME_CHARS),
          quoting.one_line(decision.context, _MAX_FIELD_CHARS),
          quoting.one_line(decision.sub_goal, _MAX_FIELD_CHARS),
        )
      )
      shown = tuple(result_text(result) for result in results)
    entry = Entry(
      headline=f"Turn {index + 1}: {headline}",
      commands=tuple(
        quoting.one_line(
          commands.render_call(call.arguments), _MAX_COMMAND_CHARS
        )
        for call in calls
      ),
      results=shown,
      verdict=verdict,
    )
    return Memory((*self.entries, entry))


def render(
  memory: Memory, budget_tokens: int, count_tokens: CountTokens, style: str
) -> str:
  """The text under `Memory:`, at most `budget_tokens` long.

  Every turn ends in a line break, where tokenizers split, so the counts of
  turns are added. `count_tokens` is called only when the bytes do not settle
  the matter. The result is "" for an empty memory.
  """
  blocks = [_whole(entry, style) for entry in memory.entries]
  text = "".join(blocks)
  if len(text.encode("utf-8", errors="replace")) <= budget_tokens:
    return text
  counts = [count_tokens(block) for block in blocks]
  for i, entry in enumerate(memory.entries):
    for max_chars in _halves(entry):
      if sum(counts) <= budget_tokens:
        return "".join(blocks)
      blocks[i] = _block(entry, style, max_chars)
      counts[i] = count_tokens(blocks[i])
  return _without_oldest(blocks, counts, budget_tokens, count_tokens)


def _without_oldest(
  blocks: list[str],
  counts: list[int],
  budget_tokens: int,
  count_tokens: CountTokens,
) -> str:
  """Leaves turns out, oldest first; cuts into the newest one at the end."""
  left_out, note, note_tokens = 0, "", 0
  while note_tokens + sum(counts[left_out:]) > budget_tokens:
    if left_out + 1 == len(blocks):
      return _fitted(blocks[-1], budget_tokens, count_tokens)
    left_out += 1
    plural = "" if left_out == 1 else "s"
    note = f"[{left_out} earlier turn{plural} left out]\n"
    note_tokens = count_tokens(note)
  return note + "".join(blocks[left_out:])


def _fitted(text: str, budget_tokens: int, count_tokens: CountTokens) -> str:
  """`text` cut in the middle by halves until it fits; "" if nothing does."""
  max_chars = len(text) // 2
  while max_chars:
    shorter = quoting.cut_middle(text, max_chars)[0]
    if count_tokens(shorter) <= budget_tokens:
      return shorter
    max_chars //= 2
  return ""


def _halves(entry: Entry) -> list[int]:
  """Powers of two below the longest result, falling.

  A fixed grid: how far one result is cut does not depend on the others.
  """
  longest = max((len(result) for result in entry.results), default=0)
  lengths = []
  max_chars = _SHORTEST_RESULT_CHARS
  while max_chars < longest:
    lengths.append(max_chars)
    max_chars *= 2
  return lengths[::-1]


def _whole(entry: Entry, style: str) -> str:
  """The lines of one turn, nothing cut; written once."""
  if style not in entry.texts:
    entry.texts[style] = _block(entry, style, None)
  return entry.texts[style]


def _block(entry: Entry, style: str, max_chars: int | None) -> str:
  """The lines of one turn, its results at most `max_chars` each."""
  lines = [entry.headline]
  for k, result in enumerate(entry.results):
    if style == FULL and k < len(entry.commands):
      lines.append(f"{messages_lib.COMMAND} {entry.commands[k]}")
    if max_chars is not None:
      result = quoting.cut_middle(result, max_chars)[0]
    lines.append(quoting.section(messages_lib.RESULT, result))
  if entry.verdict is not None:
    lines.append(_verdict_line(entry.verdict, style))
  return "\n".join(lines) + "\n"


def _verdict_line(verdict: trajectory_lib.Verdict, style: str) -> str:
  word = "STOP" if verdict.stop else "CONTINUE"
  reason = quoting.one_line(verdict.reason, _MAX_REASON_CHARS)
  if style == FULL and reason:
    return f"{messages_lib.VERDICT} {word}. {reason}"
  return f"{messages_lib.VERDICT} {word}"


def result_text(result: tool_lib.ToolResult) -> str:
  """A result as prompts show it, errors by their kind; not neutralised."""
  if result.error is not None:
    return f"error ({result.error}): {result.output}"
  return result.output or "(empty)"
