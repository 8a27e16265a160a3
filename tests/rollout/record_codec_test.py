"""Records hold every trajectory exactly and refuse what is none."""

import dataclasses
import json
import pathlib

import hypothesis
import pytest
import record_fakes
from hypothesis import strategies as st

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import recorder

# Everything a model can write: line separators, half surrogate pairs, ...
_TEXT = st.one_of(
  st.text(st.characters(exclude_categories=()), max_size=8),
  st.sampled_from(["a\nb", "\u2028", "\x85", "\ud800", '"\\', "NaN", ""]),
)
_FLOAT = st.floats()  # with nan, infinities and -0.0
_INT = st.integers(min_value=-1, max_value=2**40)


def _tuples(items, **sizes):
  return st.lists(items, max_size=3, **sizes).map(tuple)


def _completions():
  return st.integers(0, 4).flatmap(
    lambda n: st.builds(
      engine_lib.Completion,
      text=_TEXT,
      finish_reason=st.sampled_from(engine_lib.FinishReason),
      token_ids=st.lists(_INT, min_size=n, max_size=n).map(tuple),
      logprobs=st.lists(_FLOAT, min_size=n, max_size=n).map(tuple),
      prompt_token_ids=_tuples(_INT),
      policy_version=_INT,
    )
  )


_LITERALS = st.recursive(
  st.none() | st.booleans() | _INT | _FLOAT | _TEXT,
  lambda inner: (
    st.lists(inner, max_size=3)
    | _tuples(inner)
    | st.dictionaries(_TEXT | st.just("$tuple") | _INT, inner, max_size=3)
  ),
  max_leaves=6,
)
_CALLS = st.builds(
  trajectory_lib.ModuleCall,
  role=st.sampled_from(messages_lib.ModuleRole),
  messages=_tuples(
    st.builds(messages_lib.Message, st.sampled_from(["user", "system"]), _TEXT)
  ),
  completion=_completions(),
)
_TURNS = st.builds(
  trajectory_lib.Turn,
  index=_INT,
  decision=st.builds(
    trajectory_lib.Decision,
    context=_TEXT,
    sub_goal=_TEXT,
    tool_name=_TEXT,
    justification=_TEXT,
  )
  | st.builds(trajectory_lib.ParseFailure, reason=_TEXT),
  command=_TEXT,
  calls=_tuples(
    st.builds(
      tool_lib.ToolCall,
      tool_name=_TEXT,
      arguments=st.dictionaries(_TEXT, _LITERALS, max_size=2),
    )
  ),
  results=_tuples(
    st.builds(
      tool_lib.ToolResult,
      output=_TEXT,
      error=st.none() | st.sampled_from(tool_lib.ToolErrorKind),
      duration_s=_FLOAT,
      truncated_chars=_INT,
    )
  ),
  verdict=st.builds(
    trajectory_lib.Verdict,
    stop=st.booleans(),
    reason=_TEXT,
    parsed=st.booleans(),
  ),
  module_calls=_tuples(_CALLS),
  duration_s=_FLOAT,
)
_TRAJECTORIES = st.builds(
  trajectory_lib.Trajectory,
  task=st.builds(
    task_lib.Task,
    id=_TEXT,
    question=_TEXT,
    answers=_tuples(_TEXT),
    data_source=_TEXT,
    scorer=_TEXT,
    family=_TEXT,
  ),
  member=_INT,
  turns=_tuples(_TURNS),
  answer=_TEXT,
  outputs=_tuples(st.tuples(_TEXT, _TEXT)),
  stop_reason=st.sampled_from(trajectory_lib.StopReason),
  policy_version=_INT,
  reward=st.none() | _FLOAT,
  failure=_TEXT,
  duration_s=_FLOAT,
  final_calls=_tuples(_CALLS),
)


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp("records") / "a" / "b.jsonl"


@hypothesis.settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.data_too_large,
  ],
)
@hypothesis.given(trajectories=st.lists(_TRAJECTORIES, max_size=2))
def test_a_written_file_reads_back_exactly(shared_path, trajectories):
  record_fakes.write(shared_path, *trajectories, redact=lambda text: text)
  # repr tells nan from nan-free, 1 from 1.0 and -0.0 from 0.0; == does not.
  assert repr(list(recorder.read_trajectories(shared_path))) == repr(
    trajectories
  )
  assert len(shared_path.read_bytes().splitlines()) == len(trajectories)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"member": "2"}, "record.member is not int"),
    ({"reward": True}, "record.reward is not float"),
    ({"reward": "high"}, "record.reward is not float"),
    ({"answer": None}, "record.answer is not str"),
    ({"stop_reason": "tired"}, "'tired' is not a valid StopReason"),
    ({"turns": {}}, "record.turns is not a list"),
    ({"turns": [3]}, r"record.turns\[0\] is not an object"),
    ({"outputs": [["direct"]]}, "has 1 items, not 2"),
    ({"extra": 1}, r"unknown \['extra'\]"),
    ({"task": {"id": "q"}}, "record.task has unknown .* lacks"),
  ],
)
def test_a_wrong_field_is_named(change, words):
  record = recorder.to_record(record_fakes.example(), step=0) | change
  with pytest.raises(ValueError, match=words):
    recorder.from_record(record)


def _through_json(arguments):
  """Arguments of a call after a trip through a record."""
  call = tool_lib.ToolCall(tool_name="T", arguments=arguments)
  turn = dataclasses.replace(record_fakes.example().turns[0], calls=(call,))
  record = recorder.to_record(record_fakes.example(turns=(turn,)), step=0)
  read = recorder.from_record(json.loads(json.dumps(record)))
  return read.turns[0].calls[0].arguments


@pytest.mark.parametrize(
  "arguments",
  [
    {"a": (1, [2, (3,)])},
    {"a": {1: "b", "c": 2}},
    {"a": float("-inf")},
    # A model may write our own tags.
    {"a": {"$tuple": [1]}, "b": {"$text": "x"}},
    {"$float": "inf"},
    {"$dict": [[1, 2]], "b": {"$dict": 3}},
  ],
)
def test_arguments_survive_as_they_are(arguments):
  assert repr(_through_json(arguments)) == repr(arguments)


def test_arguments_no_schema_accepts_become_text():
  deep = "leaf"
  for _ in range(600):
    deep = [deep]
  arguments = _through_json({"a": {1}, "b": b"x", "c": deep})
  assert arguments["a"] == "{1}"
  assert arguments["b"] == "b'x'"
  assert "nested deeper" in json.dumps(arguments["c"])
