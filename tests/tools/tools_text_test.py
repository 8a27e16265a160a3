"""Argument check, middle cut and one-line cut."""

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import text as text_lib

_settings = hypothesis.settings(deadline=None)


def test_a_query_is_one_non_blank_string():
  assert text_lib.query_of({"query": " Laos \n"}) == "Laos"
  for arguments in ({}, {"query": 3}, {"query": " "}, {"query": "a", "k": 1}):
    result = text_lib.query_of(arguments)
    assert isinstance(result, tool_lib.ToolResult), arguments
    assert result.error == tool_lib.ToolErrorKind.INVALID_ARGUMENTS


def test_cut_middle_says_how_much_is_gone():
  text, cut = text_lib.cut_middle("a" * 500 + "b" * 500, 100)
  assert text == "a" * 30 + "\n[940 characters cut]\n" + "b" * 30
  assert cut == 940


@_settings
@hypothesis.given(st.text(max_size=300), st.integers(80, 200))
def test_cut_middle_keeps_the_ends_and_the_limit(text, limit):
  shown, cut = text_lib.cut_middle(text, limit)
  assert len(shown) <= limit
  if cut:
    marker = f"\n[{cut} characters cut]\n"
    head, tail = shown.split(marker)
    assert text.startswith(head) and text.endswith(tail)
    assert len(head) + cut + len(tail) == len(text)
  else:
    assert shown == text


def test_cut_middle_refuses_a_limit_below_its_marker():
  with pytest.raises(ValueError, match="79"):
    text_lib.cut_middle("a" * 100, 79)


def test_one_line():
  assert text_lib.one_line(" a\n b\tc ", 10) == "a b c"
  assert text_lib.one_line("a" * 100, 10) == "aaaaaaa..."
  assert text_lib.one_line(" " * 10**6 + "a", 10) == "..."
