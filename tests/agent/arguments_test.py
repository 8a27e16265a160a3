"""Arguments against JSON schemas."""

import pytest

from agentflow_jax.agent import arguments
from agentflow_jax.core import tool as tool_lib

SCHEMA = {
  "type": "object",
  "properties": {
    "query": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "exact": {"type": "boolean"},
    "mode": {"type": "string", "enum": ["fast", "slow"]},
    "tags": {"type": "array", "items": {"type": "string"}},
    "where": {
      "type": "object",
      "properties": {"x": {"type": "number"}},
      "required": ["x"],
      "additionalProperties": False,
    },
    "free": {"type": "object"},
    "maybe": {"type": ["string", "null"]},
    "any": {"description": "no type: anything"},
  },
  "required": ["query"],
}

SPEC = tool_lib.ToolSpec(name="T", description="", inputs=SCHEMA, output="")


@pytest.mark.parametrize(
  ("values", "problem"),
  [
    ({"query": "a"}, None),
    ({"query": ""}, None),
    ({}, "missing argument query"),
    ({"query": 1}, "query must be string"),
    ({"query": None}, "query must be string"),
    ({"query": "a", "count": 3}, None),
    ({"query": "a", "count": 3.0}, "count must be integer"),
    ({"query": "a", "count": True}, "count must be integer"),
    ({"query": "a", "count": "3"}, "count must be integer"),
    ({"query": "a", "ratio": 3}, None),
    ({"query": "a", "ratio": 0.5}, None),
    ({"query": "a", "ratio": False}, "ratio must be number"),
    ({"query": "a", "exact": False}, None),
    ({"query": "a", "exact": 0}, "exact must be boolean"),
    ({"query": "a", "mode": "fast"}, None),
    ({"query": "a", "mode": "warp"}, "mode must be one of fast, slow"),
    ({"query": "a", "tags": []}, None),
    ({"query": "a", "tags": ["x", 1]}, "tags[1] must be string"),
    ({"query": "a", "tags": "x"}, "tags must be array"),
    ({"query": "a", "where": {"x": 1}}, None),
    ({"query": "a", "where": {}}, "missing argument where.x"),
    ({"query": "a", "where": {"x": "1"}}, "where.x must be number"),
    (
      {"query": "a", "where": {"x": 1, "y": 1}},
      "unknown argument where.y; the arguments are: x",
    ),
    ({"query": "a", "free": {"anything": [1]}}, None),
    ({"query": "a", "maybe": None}, None),
    ({"query": "a", "maybe": 1}, "maybe must be string or null"),
    ({"query": "a", "any": [1, {}]}, None),
  ],
)
def test_table(values, problem):
  assert arguments.validate_arguments(values, SPEC) == problem


def test_unknown_argument_lists_the_known_ones():
  problem = arguments.validate_arguments({"query": "a", "q": "b"}, SPEC)
  assert problem is not None
  assert problem.startswith("unknown argument q; the arguments are: query, ")


def test_a_schema_without_properties_takes_no_arguments():
  spec = tool_lib.ToolSpec(name="T", description="", inputs={}, output="")
  assert arguments.validate_arguments({}, spec) is None
  assert arguments.validate_arguments({"a": 1}, spec) == (
    "unknown argument a; the arguments are: none"
  )


def test_hostile_names_are_shown_on_one_bounded_line():
  problem = arguments.validate_arguments({"query": "", "a\n" * 999: 1}, SPEC)
  assert problem is not None
  assert "\n" not in problem
  assert len(problem) < 300


def test_a_tools_impossible_type_is_a_bug():
  spec = tool_lib.ToolSpec(
    name="T",
    description="",
    inputs={"properties": {"a": {"type": "text"}}},
    output="",
  )
  with pytest.raises(ValueError, match="unknown JSON schema type 'text'"):
    arguments.validate_arguments({"a": "x"}, spec)
