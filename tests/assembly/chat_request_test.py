"""What the chat completions server reads of a request, and what it refuses."""

import json

import pytest

from agentflow_jax.assembly import api_connection, chat_request
from agentflow_jax.core import engine as engine_lib

_ASK = {"model": "planner", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
  "more",
  [
    {"messages": []},
    {"messages": "Hi"},
    {"messages": [{"role": "tool", "content": "a"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"messages": [{"role": "user"}]},
    {"model": 3},
    {"max_tokens": 0},
    {"max_tokens": 65},
    {"max_completion_tokens": True},
    {"temperature": -1},
    {"temperature": float("nan")},
    {"temperature": 10**400},
    {"top_p": 0},
    {"top_p": "1"},
    {"min_p": 2},
    {"top_k": -2},
    {"stop": ["a"] * 17},
    {"stop": ""},
    {"stop": {}},
    {"seed": 2**63},
    {"seed": 1.5},
    {"stream": 1},
    {"stream_options": 3},
    {"logprobs": True},
    {"tools": [{"type": "function"}]},
    {"response_format": {"type": "json_object"}},
    {"no_such_thing": 1},
  ],
)
def test_what_can_not_be_done_is_refused(more):
  with pytest.raises(api_connection.ApiError) as caught:
    chat_request.read(
      json.dumps(_ASK | more).encode(), engine_lib.SamplingParams(max_tokens=64)
    )
  assert caught.value.status == 400
  assert next(iter(more)) in str(caught.value)


def test_what_is_left_out_is_the_default_and_null_is_left_out():
  defaults = engine_lib.SamplingParams(temperature=0.3, top_k=5, max_tokens=9)
  asked = _ASK | {"n": 1, "tools": None, "stop": None, "user": "me"}
  read = chat_request.read(json.dumps(asked).encode(), defaults)
  assert (read.sampling, read.seed, read.stream) == (defaults, None, False)
  parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
  messages = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": parts},
  ]
  more = {"messages": messages, "max_tokens": 3, "max_completion_tokens": 4}
  more |= {"top_p": 0.5, "top_k": -1, "min_p": 0.1, "stop": ["a", "b"]}
  read = chat_request.read(json.dumps(_ASK | more).encode(), defaults)
  assert [(m.role, m.content) for m in read.messages] == [
    ("system", "Be brief."),
    ("user", "Hi"),
  ]
  assert read.sampling == engine_lib.SamplingParams(
    temperature=0.3,
    top_p=0.5,
    min_p=0.1,
    max_tokens=4,
    stop=("a", "b"),
  )
