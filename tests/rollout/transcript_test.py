"""Transcript: every part of a turn is shown, and nothing of it is obeyed."""

import dataclasses
import io

import pytest
import record_fakes

from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import transcript as transcript_lib

_HOSTILE = (
  "\x1b]0;owned\x07\x1b[2J[bold red]x[/] :skull: \u202egnp\r\nAnswer: 42\r"
  "Turn 9\x85  Verdict  STOP\u2028Question: no\ttab\x9b31m"
)


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


def _shown(trajectory, file):
  transcript = transcript_lib.Transcript(file)
  transcript.question(trajectory.task.question)
  for turn in trajectory.turns:
    transcript.turn(turn)
  transcript.end(trajectory)
  return file.getvalue()


def _with_turn(**changes) -> trajectory_lib.Trajectory:
  trajectory = record_fakes.example()
  turn = dataclasses.replace(trajectory.turns[0], **changes)
  return dataclasses.replace(trajectory, turns=(turn,))


def test_a_pipe_gets_plain_lines():
  assert _shown(record_fakes.example(), io.StringIO()).splitlines() == [
    "Question: What is the capital of Laos?",
    "Turn 1",
    "  Plan     find (Laos), with Wikipedia_Search_Tool",
    "  Call     Wikipedia_Search_Tool(query='Vientiane')",
    "  Error    limit: Vientiane",
    "  Verdict  STOP: Vientiane",
    "Answer: Vientiane",
    "  Ended    verified, 1 turns, 0.0 s",
  ]


def test_flags_stand_below_the_answer():
  flags = ("gold_url", "judge_directed")
  flagged = dataclasses.replace(record_fakes.example(), flags=flags)
  assert _shown(flagged, io.StringIO()).splitlines()[-2:] == [
    "  Flag     gold_url: a call or a result names an address where answers "
    "are kept",
    "  Flag     judge_directed: text that is written for whoever judges the "
    "answer",
  ]


def test_a_terminal_gets_the_same_in_colour(monkeypatch):
  monkeypatch.setenv("TERM", "xterm-256color")
  monkeypatch.delenv("NO_COLOR", raising=False)
  text = _shown(record_fakes.example(), _Terminal())
  assert "\x1b[31m" in text  # the error is red
  for part in ("find (Laos)", "query='Vientiane'", "STOP: Vientiane"):
    assert part in text


@pytest.mark.parametrize("file", [io.StringIO, _Terminal])
def test_hostile_text_is_shown_and_not_obeyed(file, monkeypatch):
  monkeypatch.setenv("TERM", "dumb")  # so that every escape is a stranger's
  monkeypatch.setenv("COLUMNS", "400")
  text = _shown(record_fakes.example(_HOSTILE), file())
  # Nothing but newlines and printable characters reaches the terminal.
  assert not [c for c in text if not c.isprintable() and c != "\n"]
  assert "[U+001B]]0;owned[U+0007][U+001B][2J[bold red]x[/] :skull:" in text
  assert "[U+202E]gnp" in text
  # Labels of ours stand at the start of a line; a stranger's never do.
  heads = [line for line in text.splitlines() if not line.startswith("  ")]
  assert [head.split(":")[0] for head in heads] == [
    "Question",
    "Turn 1",
    "Answer",
  ]


def test_an_unreadable_plan_and_an_unreadable_command():
  unreadable = _with_turn(
    decision=trajectory_lib.ParseFailure(reason="no Tool Name"),
    calls=(),
    results=(),
  )
  text = _shown(unreadable, io.StringIO())
  assert "  Plan     (unreadable: no Tool Name)\n" in text
  assert "  Wrote    Vientiane\n" in text
  result = tool_lib.ToolResult(
    output="no call", error=tool_lib.ToolErrorKind.NO_CALL
  )
  no_call = _with_turn(command="do it", calls=(), results=(result,))
  text = _shown(no_call, io.StringIO())
  assert "  Command  do it\n  Error    no_call: no call\n" in text


def test_a_lost_episode_says_what_failed():
  lost = record_fakes.example(
    answer="",
    stop_reason=trajectory_lib.StopReason.INFRA_ERROR,
    failure="turn 2, planner: host is gone",
  )
  text = _shown(lost, io.StringIO())
  assert "Failed: turn 2, planner: host is gone\n" in text
  assert "Answer" not in text


def test_a_huge_result_is_cut_in_the_middle():
  huge = "a" + "\n" * 200_000 + "x" * 5_000_000 + "z"
  text = _shown(_with_turn(results=(tool_lib.ToolResult(output=huge),)),
                io.StringIO())  # fmt: skip
  assert len(text) < 20_000
  assert "characters cut" in text
  assert "xxz\n" in text
