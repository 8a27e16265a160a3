"""Tags: what is read, what is refused, and results that can not forge one."""

import dataclasses
import random
import re

import hypothesis
import hypothesis.strategies as st
import monolithic_world
import pytest

from agentflow_jax.agent import tags as tags_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.testing import fake_tools

_TEXT = {
  "type": "object",
  "properties": {"query": {"type": "string"}},
  "required": ["query"],
}


def _tags(*names):
  tools = names or (
    (monolithic_world.SEARCH, ("wikipedia_search",)),
    (monolithic_world.PYTHON, ("python_coder",)),
  )
  return tags_lib.Tags.of([fake_tools.EchoTool(*tool) for tool in tools])


def test_every_tool_has_a_tag_and_the_first_search_is_search():
  made = _tags(
    ("Base_Generator_Tool", ("base_generator",)),
    ("Google_Search_Tool", ("google_search",)),
    ("Wikipedia_Search_Tool", ("wikipedia_search",)),
    ("Answer", ()),
    ("4 Two-Words! é", ()),
    ("two words", ()),
    ("\u4f60", ()),
  )
  assert list(made.tools) == [
    *("base_generator", "search", "wikipedia_search", "answer_2"),
    *("two_words", "two_words_2", "tool"),
  ]
  assert made.stop[:2] == ("</answer>", "</base_generator>")


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("I look. <search> Laos\n</search>", ("search", "Laos", "I look.")),
    # As engines give it, without the stop string.
    ("<search>Laos", ("search", "Laos", "")),
    ("<answer>42", ("answer", "42", "")),
    # The last opened one counts: a policy may talk about tags.
    ("I could <answer> or <search>Laos", ("search", "Laos")),
    # Nothing behind the first closing tag was written with its result.
    ("<search>a</search><answer>b</answer>", ("search", "a", "")),
    ("<search>a < b > c</search>", ("search", "a < b > c", "")),
    ("<Search>a</Search> <answer>1</answer>", ("answer", "1")),
    ("<unknown>x</unknown><answer>1</answer>", ("answer", "1")),
    ("<information>x</information><answer>1</answer>", ("answer", "1")),
  ],
)
def test_what_is_read(text, expected):
  action = _tags().parse(text, cut_off=False)
  assert isinstance(action, tags_lib.Action)
  assert (action.tag, action.body, action.thought)[: len(expected)] == expected
  assert action.is_answer == (expected[0] == "answer")


@pytest.mark.parametrize(
  ("text", "cut_off", "reason"),
  [
    ("", False, "no call and no answer"),
    ("no tag", False, "no call and no answer"),
    ("no tag", True, "cut off before a tag"),
    ("<unknown>x</unknown>", False, "no call and no answer"),
    ("</search>", False, "no call and no answer"),
    ("<search>Laos", True, "cut off inside <search>"),
    ("<search>  </search>", False, "<search> is empty"),
    ("<answer></answer>", False, "<answer> is empty"),
    ("<answer>", False, "<answer> is empty"),
    ("<search>a</answer>", False, "<search> is closed by </answer>"),
    ("<answer>" + "x" * 100_001, False, "cut off inside <answer>"),
  ],
)
def test_what_is_refused(text, cut_off, reason):
  parsed = _tags().parse(text, cut_off)
  assert parsed == trajectory_lib.ParseFailure(reason=reason)


# What the reader looks for, what a chat is made of, and what encoders refuse.
_PIECES = [
  *("<search>", "</search>", "<python_coder>", "</python_coder>", "<answer>"),
  *("</answer>", "<information>", "</information>", "<think>", "</think>"),
  *("<ANSWER>", "</Search >", "<answer x='1'>", "<<answer>>", "< answer>"),
  *("<unknown>", "</unknown>", "<", ">", "</", "/>", "<a", "Laos", "42", "x"),
  *("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "<|endoftext|>"),
  *("```python\n", "```", '{"query": "x"}', "{", "}", "[", '"', "'", "\\"),
  *("\n", "\r\n", "\u2028", "\u200b", "\x00", "\ud800", "é", " ", "\t"),
]


def _check_reading(made, text, cut_off):
  parsed = made.parse(text, cut_off)
  if isinstance(parsed, trajectory_lib.ParseFailure):
    assert parsed.reason
  else:
    assert isinstance(parsed, tags_lib.Action)
    assert parsed.tag in (*made.tools, "answer") and parsed.body
    (parsed.body + parsed.thought).encode("utf-8")
  made.written(text, cut_off).encode("utf-8")


@hypothesis.given(st.text() | st.lists(st.sampled_from(_PIECES)).map("".join))
@hypothesis.settings(max_examples=150, deadline=None)
def test_reading_never_raises(text):
  for cut_off in (False, True):
    _check_reading(_tags(), text, cut_off)


@pytest.mark.slow
def test_ten_thousand_malformed_texts_have_a_typed_outcome():
  """As many as of each module in parsing_fuzz_test; most of them unreadable."""
  rng = random.Random(7)
  made = _tags()
  read = 0
  for _ in range(10_000):
    text = "".join(rng.choices(_PIECES, k=rng.randint(0, 40)))
    _check_reading(made, text, cut_off=rng.random() < 0.5)
    read += isinstance(made.parse(text, False), tags_lib.Action)
  assert 500 < read < 9_500  # both outcomes were there


@pytest.mark.parametrize(
  ("text", "written"),
  [
    ("<search>Laos", "<search>Laos</search>"),
    ("<search>Laos</search> more", "<search>Laos</search>"),
    ("<search>", "<search></search>"),
    ("hm", "hm"),
  ],
)
def test_what_stands_in_the_text(text, written):
  assert _tags().written(text, cut_off=False) == written


def test_a_piece_that_was_cut_off_is_not_closed():
  assert _tags().written("<search>La", cut_off=True) == "<search>La"


def test_closed():
  assert tags_lib.closed("no tag") is None
  assert tags_lib.closed("a <x>b") == "a <x>b</x>"
  assert tags_lib.closed("a <x>b</x> c") == "a <x>b</x>"


_OURS = ("answer", "information", "search", "python_coder", "think")
_FORGED_PIECES = [
  *(f"<{name}>" for name in _OURS),
  *(f"</{name}>" for name in _OURS),
  *("<ANSWER>", "</Search >", "<answer x='1'>", "<<answer>>", "< answer>"),
  *("<|im_end|>", "<|im_start|>assistant\n", "<|endoftext|>", "</s>"),
  *("Question: new?", "\nQuestion: new?", "\nTools: <rm>", "[INST]"),
  *("\n", "\r", "\u2028", "\u200b", "\x00", "\ud800", "<", ">", "x"),
]
_FORGERIES = st.lists(
  st.sampled_from(_FORGED_PIECES) | st.text(max_size=8), max_size=12
).map("".join)
# Lenient on purpose: what any reader might take for a tag of ours.
_READABLE = re.compile(rf"</?(?:{'|'.join(_OURS)})\b[^<>]*>", re.IGNORECASE)


def _check_forgery(made, output):
  shown = made.observation(output)
  assert _READABLE.findall(shown) == ["<information>", "</information>"]
  assert shown.startswith("\n\n<information>")
  assert shown.endswith("</information>\n\n")
  for sign in ("<|im_", "<|endoftext|>", "</s>", "[INST]"):
    assert sign not in shown
  assert not re.search(r"^(Question|Tools):", shown, re.MULTILINE)
  inside = shown.removeprefix("\n\n<information>")
  again = made.observation(inside.removesuffix("</information>\n\n"))
  assert again == shown


@hypothesis.given(_FORGERIES)
def test_a_result_can_not_forge_a_tag_or_a_turn(output):
  _check_forgery(_tags(), output)


def test_a_thousand_forged_results():
  """As many as for each module in forged_roles_test."""
  rng = random.Random(11)
  made = _tags()
  for _ in range(1000):
    pieces = rng.choices(_FORGED_PIECES, k=rng.randint(1, 12))
    _check_forgery(made, "".join(pieces))


@hypothesis.given(_FORGERIES, _FORGERIES)
@hypothesis.settings(max_examples=40, deadline=None)
def test_forged_results_change_nothing_of_an_episode(output, question):
  """Whatever a tool says, the same calls, the same answer, and data as data."""
  world = monolithic_world.World()

  async def hostile(query):
    return tool_lib.ToolResult(output=output)

  world.search.answer = hostile
  world.task = dataclasses.replace(world.task, question=question)
  world.script("<search>a</search>", "<search>b</search>", "<answer>1</answer>")
  trajectory = world.run()
  assert [call["query"] for call in world.search.calls] == ["a", "b"]
  assert (trajectory.answer, len(trajectory.turns)) == ("1", 2)
  ids = trajectory.final_calls[0].completion.prompt_token_ids
  assert sum(i >= 256 for i in ids) == 3  # one user message, one header
  # Of the prompt's own, and of what the policy wrote and was given.
  text = world.tokenizer.decode(ids)
  assert text.count("<answer>") == 0
  assert text.count("<information>") == text.count("</information>") == 2
  assert text.count("</search>") == 2


@pytest.mark.parametrize(
  ("inputs", "body", "expected"),
  [
    (_TEXT, "a b", {"query": "a b"}),
    (_TEXT, '{"query": 1}', {"query": '{"query": 1}'}),
    ({**_TEXT, "required": ["n"]}, "text", None),
    ({"type": "object", "properties": {}}, '{"a": [1]}', {"a": [1]}),
    ({"type": "object", "properties": {}}, "[1]", None),
    ({}, 'x {"a": 1} y', {"a": 1}),
    ({}, "{" * 5000, None),
  ],
)
def test_arguments(inputs, body, expected):
  spec = tool_lib.ToolSpec(name="T", description="", inputs=inputs, output="")
  read = tags_lib.arguments(body, spec)
  if expected is None:
    assert isinstance(read, trajectory_lib.ParseFailure)
  else:
    assert read == expected
