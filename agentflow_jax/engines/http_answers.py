"""Bytes of a chat completions API, read into an answer.

Whole bodies (one JSON object) and streams (server-sent events) give the same
`Answer`. A body is data of a stranger: it is bounded, checked against a
pydantic model, and what does not fit is an `EngineError`, never an answer.
"""

import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pydantic

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors

# More than any completion; a host that sends more is broken.
MAX_BYTES = 16 * 2**20

_DATA = "data:"
_DONE = "[DONE]"
# What APIs say when a completion ended, in our words.
_FINISH_REASONS = {
  "stop": engine_lib.FinishReason.STOP,
  "length": engine_lib.FinishReason.LENGTH,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
  """What an API answered."""

  text: str
  finish_reason: engine_lib.FinishReason
  prompt_tokens: int = 0
  completion_tokens: int = 0


class _Message(pydantic.BaseModel):
  content: str | None = None
  refusal: str | None = None


class _Choice(pydantic.BaseModel):
  finish_reason: str | None = None
  message: _Message = _Message()  # of a whole body
  delta: _Message = _Message()  # of one event of a stream


class _Usage(pydantic.BaseModel):
  prompt_tokens: int | None = None
  completion_tokens: int | None = None


class _Body(pydantic.BaseModel):
  choices: list[_Choice]
  usage: _Usage | None = None


async def read_bounded(chunks: AsyncIterator[bytes]) -> bytes:
  """All of a body.

  Raises:
    EngineError: it is longer than MAX_BYTES.
  """
  body = bytearray()
  async for chunk in chunks:
    body += chunk
    if len(body) > MAX_BYTES:
      raise errors.EngineError(f"the answer is longer than {MAX_BYTES} bytes")
  return bytes(body)


def from_body(body: bytes) -> Answer:
  """The answer of one JSON object.

  Raises:
    EngineError: it is cut off, or not what the API promises.
  """
  return _answer([_read(body)])


def from_events(body: bytes) -> Answer:
  """The answer of a stream that ended.

  Raises:
    EngineError: the stream broke off, or is not what the API promises.
  """
  return _answer([_read(event) for event in _events(body)])


def _events(body: bytes) -> Iterator[bytes]:
  for line in body.decode("utf-8", errors="replace").splitlines():
    data = line.removeprefix(_DATA).strip()
    if line.startswith(_DATA) and data != _DONE:
      yield data.encode("utf-8")


def _read(body: bytes) -> _Body:
  try:
    value: Any = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise errors.EngineError(
      f"the answer is no JSON ({len(body)} bytes)"
    ) from error
  if isinstance(value, dict) and value.get("error"):
    # Some hosts answer 200 and say in the body that they failed.
    raise errors.EngineError("the answer is an error message")
  try:
    return _Body.model_validate(value)
  except pydantic.ValidationError as error:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    raise errors.EngineError(
      f"the answer is no chat completion: {where}: {first['msg']}"
    ) from error


def _answer(parts: list[_Body]) -> Answer:
  """Joins the parts of an answer: one body, or the events of a stream."""
  texts, reason, refused = [], None, False
  for choice in (choice for part in parts for choice in part.choices[:1]):
    for message in (choice.message, choice.delta):
      texts.append(message.content or "")
      refused = refused or bool(message.refusal)
    reason = choice.finish_reason or reason
  if refused or reason == "content_filter":
    raise errors.RequestRefusedError("the host refused to answer this prompt")
  if reason not in _FINISH_REASONS:
    raise errors.EngineError(
      "the answer broke off"
      if reason is None
      else f"the answer ended with finish_reason={reason[:40]!r}"
    )
  usage = [part.usage for part in parts if part.usage is not None]
  last = usage[-1] if usage else _Usage()
  return Answer(
    text="".join(texts),
    finish_reason=_FINISH_REASONS[reason],
    prompt_tokens=last.prompt_tokens or 0,
    completion_tokens=last.completion_tokens or 0,
  )
