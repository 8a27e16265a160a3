"""Malformed model outputs, by the thousand: typed outcome, no exception.

Two parts: texts are built from the pieces that parsers look for (by hypothesis
a few, by chance many), and a list of long texts tries to be slow. Time is
asserted as a ratio, text against eight times the text, because a machine's
speed is not ours to promise.
"""

import random
import time

import hypothesis
import malformed
import pytest
from hypothesis import strategies as st

from agentflow_jax.agent import arguments, commands, parsing, quoting
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

SPEC = tool_lib.ToolSpec(
  name="Wikipedia_Search_Tool",
  aliases=("wikipedia_search",),
  description="",
  inputs={
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
  },
  output="",
)

_GARBAGE = st.lists(
  st.sampled_from(malformed.PIECES) | st.text(st.characters(), max_size=6),
  max_size=40,
).map("".join)


def _is_text(value):
  return isinstance(value, str) and value.encode("utf-8") is not None


def _check_decision(text):
  decision = parsing.parse_decision(text, [SPEC])
  if isinstance(decision, trajectory_lib.ParseFailure):
    assert decision.reason
    return
  assert isinstance(decision, trajectory_lib.Decision)
  assert decision.tool_name and decision.sub_goal
  assert _is_text(decision.context + decision.sub_goal + decision.tool_name)
  assert len(decision.tool_name) <= 200


def _check_command(text):
  calls = commands.parse_command(text)
  if isinstance(calls, trajectory_lib.ParseFailure):
    assert calls.reason
    return
  assert 1 <= len(calls) <= commands.MAX_CALLS
  for call in calls:
    if isinstance(call, trajectory_lib.ParseFailure):
      assert _is_text(call.reason)
    else:
      assert isinstance(call, dict)
      assert _is_text(commands.render_call(call))
      problem = arguments.validate_arguments(call, SPEC)
      assert problem is None or _is_text(problem)


def _check_verdict(text):
  verdict = parsing.parse_verdict(text)
  assert verdict.parsed or not verdict.stop
  assert _is_text(verdict.reason)


def _check_answer(text):
  assert _is_text(parsing.extract_answer(text))


CHECKS = (_check_decision, _check_command, _check_verdict, _check_answer)


def _check_all(text):
  for check in CHECKS:
    check(text)


# Not by hypothesis, which would take minutes to choose that many.
@pytest.mark.slow
def test_garbage_has_a_typed_outcome():
  """10,000 malformed outputs each of planner, executor, verifier, generator."""
  rng = random.Random(5)
  for _ in range(10_000):
    text = malformed.garbage(rng)
    try:
      _check_all(text)
    except Exception as error:
      raise AssertionError(f"malformed output {text!r}") from error


@hypothesis.settings(
  max_examples=150,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(_GARBAGE)
def test_some_garbage_has_a_typed_outcome(text):
  _check_all(text)


_N = 100_000
# Each is a function of its length, so that time can be compared.
LONG = {
  "newlines": lambda n: "\n" * n,
  "blanks": lambda n: " " * n,
  "stars": lambda n: "*" * n,
  "starred lines": lambda n: "**\n" * (n // 3),
  "fences": lambda n: "```\n" * (n // 4),
  "open fences": lambda n: "```a" * (n // 4),
  "braces": lambda n: "{" * n,
  "brackets": lambda n: "[" * n,
  "objects": lambda n: '{"a":' * (n // 5),
  "contexts": lambda n: "Context: a\n" * (n // 11),
  "labels": lambda n: "Context: a\nSub-Goal: b\n" * (n // 23),
  "a label and blanks": lambda n: "Context" + " " * n,
  "open calls": lambda n: "execute(" * (n // 8),
  "calls": lambda n: "execute()\n" * (n // 10),
  "comments": lambda n: "#execute(" * (n // 9),
  "open strings": lambda n: 'execute("' * (n // 9),
  "backslashes": lambda n: 'execute("' + "\\" * n,
  "escaped quotes": lambda n: 'execute("' + '\\"' * (n // 2),
  "parentheses": lambda n: "execute(" + "(" * n,
  "minus": lambda n: "execute(q=" + "-" * n + "1)",
  "sums": lambda n: 'execute(q="a"' + '+"a"' * (n // 4) + ")",
  "a list": lambda n: "execute(q=[" + "1," * (n // 2) + "])",
  "statements": lambda n: "```python\nexecute(q=1)\n" + "a\n" * (n // 2),
  "blocks": lambda n: "```python\nexecute(q=1)\n```\n" * (n // 27),
  "answers": lambda n: "<answer>" * (n // 8),
  "conclusions": lambda n: "Conclusion: STOP\n" * (n // 17),
  "a conclusion and blanks": lambda n: "Conclusion:" + " " * n,
  "a tool name": lambda n: "Context: a\nSub-Goal: b\nTool Name: " + "x" * n,
  "headings": lambda n: "Question: " * (n // 10),
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_long_garbage_has_a_typed_outcome(make):
  _check_all(make(_N))


@pytest.mark.slow
@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_time_is_at_most_linear(make):
  """Eight times the text may take 8 times the time; quadratic takes 64."""
  readers = (
    lambda text: parsing.parse_decision(text, [SPEC]),
    commands.parse_command,
    parsing.parse_verdict,
    parsing.extract_answer,
    quoting.neutralise,
  )
  for reader in readers:
    short, long = make(_N // 8), make(_N)
    # A floor of 1 ms: below it the ratio is noise.
    assert _seconds(reader, long) < 24 * max(1e-3, _seconds(reader, short))


def _seconds(reader, text):
  """The best of five, in this process's own time."""
  times = []
  for _ in range(5):
    started = time.process_time()
    reader(text)
    times.append(time.process_time() - started)
  return min(times)
