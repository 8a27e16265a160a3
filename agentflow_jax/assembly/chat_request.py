"""Reads the body of POST /v1/chat/completions, strictly.

What would change the answer and is not supported (tools, schemas, penalties,
several choices) is refused by name; what would not is ignored.
"""

import dataclasses
import json
from typing import Any

from agentflow_jax.assembly import api_connection
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib

_ROLES = {
  "system": "system",
  "developer": "system",
  "user": "user",
  "assistant": "assistant",
}
_MAX_STOPS = 16
_MAX_SEED = 2**63
_READ = frozenset(
  ("model", "messages", "max_tokens", "max_completion_tokens", "temperature")
  + ("top_p", "top_k", "min_p", "stop", "seed", "stream", "stream_options")
)
_IGNORED = frozenset(
  ("user", "metadata", "store", "service_tier", "parallel_tool_calls")
  + ("safety_identifier", "prompt_cache_key")
)
# Parameters that may be given as long as they ask for nothing.
_IDLE: dict[str, Any] = {
  "n": 1,
  "logprobs": False,
  "presence_penalty": 0,
  "frequency_penalty": 0,
  "logit_bias": {},
  "tools": [],
  "tool_choice": "none",
  "response_format": {"type": "text"},
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
  """One answer that is asked for; `seed` is None where any will do."""

  model: str
  messages: tuple[messages_lib.Message, ...]
  sampling: engine_lib.SamplingParams
  seed: int | None = None
  stream: bool = False
  stream_usage: bool = False


def read(body: bytes, defaults: engine_lib.SamplingParams) -> ChatRequest:
  """The request in a body.

  Args:
    body: JSON as OpenAI's API takes it.
    defaults: what it leaves out; its `max_tokens` is the most there can be.

  Raises:
    ApiError: 400, and what is wrong with it.
  """
  try:
    asked = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise _refusal("the body is not JSON") from error
  if not isinstance(asked, dict):
    raise _refusal("the body must be an object")
  asked = {name: value for name, value in asked.items() if value is not None}
  _refuse_unsupported(asked)
  model = asked.get("model")
  if not isinstance(model, str):
    raise _refusal("model must be a string")
  options = asked.get("stream_options", {})
  if not isinstance(options, dict):
    raise _refusal("stream_options must be an object")
  seed = asked.get("seed")
  if seed is not None:
    _check("seed", type(seed) is int and abs(seed) < _MAX_SEED, "an integer")
  return ChatRequest(
    model=model,
    messages=_messages(asked.get("messages")),
    sampling=_sampling(asked, defaults),
    seed=seed,
    stream=_flag("stream", asked),
    stream_usage=_flag("include_usage", options),
  )


def _refuse_unsupported(asked: dict[str, Any]) -> None:
  for name, value in asked.items():
    if name in _READ or name in _IGNORED:
      continue
    if name == "response_format" and value != _IDLE[name]:
      raise _refusal(
        "response_format is not supported; "
        "engines.ROLE_options.structured=false asks for free text"
      )
    if name not in _IDLE or value != _IDLE[name]:
      raise _refusal(f"{name[:100]!r} is not supported")


def _messages(value: Any) -> tuple[messages_lib.Message, ...]:
  if not isinstance(value, list) or not value:
    raise _refusal("messages must be a list of at least one message")
  return tuple(_message(i, message) for i, message in enumerate(value))


def _message(index: int, value: Any) -> messages_lib.Message:
  where = f"messages[{index}]"
  if not isinstance(value, dict):
    raise _refusal(f"{where} must be an object")
  role, content = value.get("role"), value.get("content")
  if not isinstance(role, str) or role not in _ROLES:
    raise _refusal(f"{where}.role must be one of {', '.join(_ROLES)}")
  if isinstance(content, list):
    parts = [
      part.get("text")
      for part in content
      if isinstance(part, dict) and part.get("type") == "text"
    ]
    texts = [part for part in parts if isinstance(part, str)]
    content = "".join(texts) if len(texts) == len(content) else None
  if not isinstance(content, str):
    raise _refusal(f"{where}.content must be text")
  return messages_lib.Message(_ROLES[role], content)


def _sampling(
  asked: dict[str, Any], defaults: engine_lib.SamplingParams
) -> engine_lib.SamplingParams:
  limit = defaults.max_tokens
  max_tokens = limit
  for name in ("max_tokens", "max_completion_tokens"):  # the newer name counts
    if name in asked:
      max_tokens = asked[name]
      fits = type(max_tokens) is int and 1 <= max_tokens <= limit
      _check(name, fits, f"from 1 to {limit}")
  temperature = _number("temperature", asked, defaults.temperature)
  _check("temperature", 0 <= temperature <= 2, "from 0 to 2")
  top_p = _number("top_p", asked, defaults.top_p)
  _check("top_p", 0 < top_p <= 1, "above 0 and at most 1")
  min_p = _number("min_p", asked, defaults.min_p)
  _check("min_p", 0 <= min_p <= 1, "from 0 to 1")
  top_k = asked.get("top_k", defaults.top_k)
  # vLLM's clients say -1 for "off".
  _check("top_k", type(top_k) is int and -1 <= top_k < 2**31, "at least -1")
  return engine_lib.SamplingParams(
    temperature=temperature,
    top_k=max(0, top_k),
    top_p=top_p,
    min_p=min_p,
    max_tokens=max_tokens,
    stop=_stop(asked.get("stop", [])),
  )


def _number(name: str, asked: dict[str, Any], default: float) -> float:
  value = asked.get(name, default)
  # JSON's integers have no end, and Python reads NaN: neither compares.
  number = type(value) in (int, float) and abs(value) < 1e9
  _check(name, number, "a number")
  return float(value)


def _stop(value: Any) -> tuple[str, ...]:
  stops = [value] if isinstance(value, str) else value
  _check(
    "stop",
    isinstance(stops, list)
    and len(stops) <= _MAX_STOPS
    and all(isinstance(stop, str) and stop for stop in stops),
    f"a text or a list of at most {_MAX_STOPS}, none of them empty",
  )
  return tuple(stops)


def _flag(name: str, asked: dict[str, Any]) -> bool:
  value = asked.get(name)
  if value is None:
    return False
  _check(name, isinstance(value, bool), "true or false")
  return value


def _check(name: str, fits: bool, what: str) -> None:
  if not fits:
    raise _refusal(f"{name} must be {what}")


def _refusal(message: str) -> api_connection.ApiError:
  return api_connection.ApiError(400, message)
