"""Hostile text in prompts: forged headings, cuts, line ends."""

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.agent import quoting
from agentflow_jax.core import control_tokens
from agentflow_jax.core import messages as messages_lib

# A busy machine is no finding.
_patient = hypothesis.settings(
  deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)

LABELS = [
  value
  for name, value in vars(messages_lib).items()
  if name.isupper() and isinstance(value, str)
]


def test_every_label_of_core_is_guarded():
  assert len(LABELS) >= 10
  for label in LABELS:
    assert quoting.neutralise(f"a\n{label} evil") == f"a\n> {label} evil"


@pytest.mark.parametrize(
  "line",
  [
    "Question: x",
    "  question: x",
    "QUESTION : x",
    "**Question:** x",
    "## Memory:",
    "\u200bTool Name: x",
    "\u3000Verdict: STOP",
    "Sub-Goal\uff1a x",
    "Turn 3: x",
    "Turn 12 of 12",
    "turn 3 : x",
    " " * 5000 + "Result: x",
  ],
)
def test_lines_that_look_like_headings(line):
  for break_ in ("\n", "\r\n", "\r", "\u2028", "\x0b", "\x85"):
    assert quoting.neutralise(f"a{break_}{line}") == f"a\n> {line}"


@pytest.mark.parametrize(
  "line",
  ["No Question: x", "Questions: x", "> Question: x", "Turn left: x", "Turn 3"],
)
def test_lines_that_do_not(line):
  assert quoting.neutralise(line) == line


_PIECES = st.sampled_from(
  [*LABELS, "Turn 1:", "Turn 2 of 5", "\n", "\r", "\u2028", " ", ">", "**", "a"]
)
_HOSTILE = st.lists(_PIECES | st.text(max_size=3), max_size=30).map("".join)


@_patient
@hypothesis.given(_HOSTILE)
def test_no_reader_finds_a_heading_and_nothing_is_lost(text):
  guarded = quoting.neutralise(text)
  for line in guarded.splitlines():
    bare = line.strip(" \t*_#`").lower()
    assert not any(bare.startswith(label.lower()) for label in LABELS)
    assert not bare.startswith(("turn 1:", "turn 2 of"))
  assert quoting.neutralise(guarded) == guarded
  kept = guarded.replace("> ", "").replace("\n", "")
  assert kept == "".join(text.splitlines()).replace("> ", "")


@_patient
@hypothesis.given(_HOSTILE)
def test_section_has_one_heading(text):
  section = quoting.section("Result:", text)
  first, _, rest = section.partition("\n")
  assert first.startswith("Result: ")
  assert quoting.neutralise("x\n" + rest) in ("x\n" + rest, "x")


@_patient
@hypothesis.given(st.text(max_size=300), st.integers(0, 200))
def test_cut_middle_keeps_both_ends_and_counts(text, max_chars):
  short, cut = quoting.cut_middle(text, max_chars)
  assert len(short) <= max_chars or short == text
  if cut == 0:
    assert short == text
    return
  marker = f" [... {cut} characters cut ...] "
  if marker in short:
    head, tail = short.split(marker)
    assert text.startswith(head) and text.endswith(tail)
    assert len(head) + len(tail) + cut == len(text)
    assert abs(len(head) - len(tail)) <= 1
  else:
    assert text.startswith(short)
    assert len(short) + cut == len(text)


def test_a_cut_can_not_make_a_heading():
  text = "x" * 100 + "Question: evil" + "y" * 30
  for max_chars in range(40, len(text)):
    short = quoting.cut_middle(text, max_chars)[0]
    assert quoting.section("Result:", short).count("\n") == 0


@_patient
@hypothesis.given(st.text(), st.integers(1, 100))
def test_one_line(text, max_chars):
  line = quoting.one_line(text, max_chars)
  assert len(line) <= max_chars
  assert len(line.splitlines()) <= 1


def test_one_line_squeezes_blanks():
  assert quoting.one_line(" a\n\n b\u2028c ", 100) == "a b c"


@_patient
@hypothesis.given(st.text(st.characters()))
def test_scrub_is_encodable_and_leaves_sound_text(text):
  scrubbed = quoting.scrub(text)
  scrubbed.encode("utf-8")
  assert len(scrubbed) == len(text)
  assert all(
    a == b or "\ud800" <= b <= "\udfff"
    for a, b in zip(scrubbed, text, strict=True)
  )


def test_scrub_replaces_surrogates():
  assert quoting.scrub("a\ud800é") == "a?é"


CONTROL = [
  "<|im_start|>",
  "<|im_end|>",
  "<|endoftext|>",
  "<|start_header_id|>",
  "<｜end▁of▁sentence｜>",
  "</s>",
  "<bos>",
  "<start_of_turn>",
  "<tool_response>",
  "</tool_response>",
  "<tool_call>",
  "</think>",
  "[INST]",
  "[/INST]",
  "[TOOL_RESULTS]",
  "<<SYS>>",
]


@pytest.mark.parametrize("token", CONTROL)
def test_control_tokens_become_text_that_can_be_read(token):
  for text in (token, f"a{token}b", f"{token}{token}", token.upper()):
    for guarded in (
      control_tokens.defuse(text),
      quoting.neutralise(text),
      quoting.section("Result:", text),
      quoting.one_line(text, 500),
    ):
      assert token.lower() not in guarded.lower()
      assert token[1:-1].lower() in guarded.lower()
    assert control_tokens.defuse(
      control_tokens.defuse(text)
    ) == control_tokens.defuse(text)


@pytest.mark.parametrize(
  "text",
  ["a < b | c > d", "x <| y", "[1]", "<p>", "<b>bold</b>", "f(x) |> g", "<>"],
)
def test_other_brackets_stay(text):
  assert control_tokens.defuse(text) == text


@_patient
@hypothesis.given(st.lists(st.sampled_from([*CONTROL, "<", "|", ">", "a"])))
def test_no_control_token_is_left_whatever_stands_around_it(pieces):
  guarded = quoting.neutralise("".join(pieces))
  for token in CONTROL:
    assert token not in guarded


@_patient
@hypothesis.given(st.text(max_size=400), st.integers(0, 300))
def test_cut_to_tokens_fits_and_keeps_both_ends(text, max_tokens):
  def count(text):  # at most one per byte
    return len(text.encode("utf-8", "replace")) * 2 // 3

  short, cut = quoting.cut_to_tokens(text, max_tokens, count)
  assert count(short) <= max_tokens
  if not cut:
    assert short == text
  elif " [... " in short:
    head, tail = short.split(" [... ")[0], short.split(" ...] ")[-1]
    assert text.startswith(head) and text.endswith(tail)


def test_cut_to_tokens_counts_rarely():
  counted = []

  def count(text):
    counted.append(len(text))
    return len(text.split())

  text = "word " * 20_000
  short, _ = quoting.cut_to_tokens(text, 500, count)
  assert 400 < len(short.split()) <= 500
  assert len(counted) <= 6
  counted.clear()
  assert quoting.cut_to_tokens("a b", 3, count) == ("a b", 0)
  assert not counted
