"""JSON amid other text."""

import pytest

from agentflow_jax.agent import lenient_json


@pytest.mark.parametrize(
  ("text", "values"),
  [
    ('{"a": 1}', [{"a": 1}]),
    (" [1, 2] ", [[1, 2]]),
    ('{"a": 1} and more', [{"a": 1}]),
    ('so {"a": {"b": 2}} it is', [{"a": {"b": 2}}]),
    ('```json\n{"a": 1}\n```', [{"a": 1}, {"a": 1}]),
    ('```\n{"a": 1}\n```\n```\n{"a": 2}\n```', [{"a": 2}, {"a": 1}, {"a": 1}]),
    ('```json\r\n{"a": 1}\r\n```', [{"a": 1}, {"a": 1}]),
    ('```json\n{"a": 1}', [{"a": 1}, {"a": 1}]),
    ("{'a': 1}", []),
    ('{"a": 1', []),
    ("{" * 100_000, []),
    ("[" * 100_000, []),
    ('{"a":' * 50_000, []),
    ("[" + "1" * 5000 + "]", []),
    ("", []),
  ],
)
def test_table(text, values):
  assert list(lenient_json.find_values(text)) == values
