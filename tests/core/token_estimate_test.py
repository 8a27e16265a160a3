"""Tokens of a text where there is no tokenizer."""

import pytest

from agentflow_jax.core import token_estimate


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("", 0),
    ("a", 1),
    ("abcd", 1),
    ("abcde", 2),
    ("\u00e9" * 4, 2),
    ("\ud800", 1),
  ],
)
def test_a_quarter_of_the_bytes_rounded_up(text, expected):
  assert token_estimate.estimate_tokens(text) == expected
