"""An episode as lines for a person: what was planned, called, found, judged.

  Turn 1
    Plan     find the capital of Laos, with Wikipedia_Search_Tool
    Call     Wikipedia_Search_Tool(query='Laos')
    Result   Vientiane is the capital of Laos.
    Verdict  STOP: the memory names it
  Answer: Vientiane
    Flag     gold_url: a call or a result names an address ...

Everything after a label comes from models and tools. It is shown as text:
control characters spelled out, no markup, every line of it indented, so that
only our own labels stand where a label stands. Long texts lose their middle;
the record (recorder.py) has all of it.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import rich.console
import rich.padding
import rich.table
import rich.text

from agentflow_jax.agent import quoting
from agentflow_jax.core import printable
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import leak_audit

_MAX_CHARS = 1500
_LABEL_WIDTH = 9
_INDENT = 2
_STYLES = {
  "Error": "red",
  "Flag": "red",
  "Verdict": "cyan",
  "Answer": "bold green",
}


class Transcript:
  """Writes episodes as they happen; styled on a terminal, else plain.

  Example:
    transcript = Transcript(sys.stdout)
    transcript.question("What is the capital of Laos?")
    trajectory = await run_episode(..., on_turn=transcript.turn)
    transcript.end(trajectory)
  """

  def __init__(self, file: TextIO):
    """Decides by `file` whether there is a terminal."""
    self._file = file
    self._console = rich.console.Console(file=file, highlight=False)

  def question(self, text: str) -> None:
    self._head("Question", text)

  def turn(self, turn: trajectory_lib.Turn) -> None:
    """One finished turn, or one that was cut short."""
    self._head(f"Turn {turn.index + 1}")
    for label, text in _rows(turn):
      self._row(label, text)

  def end(self, trajectory: trajectory_lib.Trajectory) -> None:
    """The answer, or why there is none, and what the leak audit flags."""
    if trajectory.stop_reason.masked:
      self._head("Failed", trajectory.failure or str(trajectory.stop_reason))
    else:
      self._head("Answer", trajectory.answer or "(none)")
    self._row(
      "Ended",
      f"{trajectory.stop_reason}, {len(trajectory.turns)} turns, "
      f"{trajectory.duration_s:.1f} s",
    )
    for flag in trajectory.flags:
      self._row("Flag", f"{flag}: {leak_audit.FLAGS.get(flag, 'unknown')}")

  def _head(self, label: str, text: str = "") -> None:
    lines = _shown(text)
    head = f"{label}: " if text else label
    if not self._console.is_terminal:
      rest = [" " * _INDENT + line for line in lines[1:]]
      self._write([head + lines[0], *rest])
      return
    style = _STYLES.get(label, "bold")
    line = rich.text.Text(head, style="bold")
    line.append(f"\n{' ' * _INDENT}".join(lines), style=style)
    self._console.print(line)

  def _row(self, label: str, text: str) -> None:
    lines = _shown(text)
    if not self._console.is_terminal:
      labels = itertools.chain([label], itertools.repeat(""))
      self._write(
        f"{'':{_INDENT}}{name:{_LABEL_WIDTH}}{line}"
        for name, line in zip(labels, lines, strict=False)
      )
      return
    row = rich.table.Table.grid()
    row.add_column(width=_LABEL_WIDTH)
    row.add_column(overflow="fold")
    # Text, not str: rich would read markup and emoji codes in a string.
    row.add_row(
      rich.text.Text(label, style="dim"),
      rich.text.Text("\n".join(lines), style=_STYLES.get(label, "")),
    )
    self._console.print(rich.padding.Padding(row, (0, 0, 0, _INDENT)))

  def _write(self, lines) -> None:
    self._file.writelines(f"{line.rstrip()}\n" for line in lines)
    self._file.flush()


def _rows(turn: trajectory_lib.Turn) -> Iterator[tuple[str, str]]:
  decision = turn.decision
  if isinstance(decision, trajectory_lib.ParseFailure):
    yield "Plan", f"(unreadable: {decision.reason})"
    if turn.module_calls:
      yield "Wrote", turn.module_calls[0].completion.text
    return
  context = f" ({decision.context})" if decision.context else ""
  yield "Plan", f"{decision.sub_goal}{context}, with {decision.tool_name}"
  if turn.command and not turn.calls:
    yield "Command", turn.command
  for call, result in itertools.zip_longest(turn.calls, turn.results):
    if call is not None:
      yield "Call", f"{call.tool_name}({_arguments(call.arguments)})"
    if result is not None:
      yield _result(result)
  stop = "STOP" if turn.verdict.stop else "CONTINUE"
  reason = turn.verdict.reason
  yield "Verdict", f"{stop}: {reason}" if reason else stop


def _result(result: tool_lib.ToolResult) -> tuple[str, str]:
  if result.error is None:
    return "Result", result.output
  return "Error", f"{result.error}: {result.output}"


def _arguments(arguments: Mapping[str, Any]) -> str:
  return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _shown(text: str) -> list[str]:
  """At least one line, none of which a terminal or a reader misreads."""
  cut = quoting.cut_middle(text.strip(), _MAX_CHARS)[0]
  clean = printable.spell_out(
    re.sub(r"\r\n?|[\v\f\x85\u2028\u2029]", "\n", cut)
  )
  return clean.expandtabs(4).split("\n")
