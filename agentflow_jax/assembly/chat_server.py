"""An OpenAI-compatible chat completions API over an engine of ours.

Flow: POST /v1/chat/completions -> token -> a place, or 429 -> messages and
sampling (chat_request.py) -> engine -> one JSON object, or with `stream` its
chunks as server-sent events. GET /v1/models names the model, GET /health (no
token) says what is under way.

A completion is drawn as a whole, so a stream has one chunk of text. Equal
seeds, messages and parameters give equal tokens; without a seed each answer is
drawn anew. A chat that ends with the assistant's message is gone on with.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import jax

from agentflow_jax.assembly import api_connection, chat_request, samplers
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import local
from agentflow_jax.models import sharding
from agentflow_jax.training import model_loading

_STREAM = "serve"


class ChatServer:
  """Answers requests; knows nothing of sockets.

  Args:
    engine: draws the answers.
    model: the name clients must use.
    token: what "Authorization: Bearer ..." must carry; "" accepts everybody.
    defaults: sampling of requests that say nothing; its `max_tokens` is the
      most a request may ask for.
    max_open: completions under way at once; one more is told to come later.

  Example: `await api_connection.serve(ChatServer(...).answer, sock, stop)`.
  """

  def __init__(
    self,
    engine: engine_lib.Engine,
    *,
    model: str,
    token: str,
    defaults: engine_lib.SamplingParams,
    max_open: int,
  ):
    self._engine = engine
    self._model = model
    self._token = token.encode()
    self._defaults = defaults
    self._max_open = max_open
    self._open = 0
    self._answered = 0
    self._started = int(time.time())

  async def answer(
    self, request: api_connection.Request
  ) -> api_connection.Answer:
    """What to send.

    Raises:
      ApiError: what to send instead.
    """
    if request.path == "/health":
      counts = {"open": self._open, "answered": self._answered}
      return _json({"status": "ok", "model": self._model, **counts})
    methods = {"/v1/models": "GET", "/v1/chat/completions": "POST"}
    method = methods.get(request.path)
    if method is None:
      known = f"there are {', '.join(methods)} and /health"
      raise api_connection.ApiError(404, known)
    self._check_token(request.authorization)
    if request.method != method:
      raise api_connection.ApiError(405, f"{method} it")
    if request.path == "/v1/models":
      return _json({"object": "list", "data": [self._described()]})
    return await self._complete(request.body)

  def _check_token(self, authorization: str) -> None:
    given = authorization.encode("utf-8", "replace")
    expected = b"Bearer " + self._token
    if self._token and not hmac.compare_digest(given, expected):
      raise api_connection.ApiError(
        401, "send Authorization: Bearer TOKEN", "invalid_api_key"
      )

  def _described(self) -> dict[str, Any]:
    return {
      "id": self._model,
      "object": "model",
      "created": self._started,
      "owned_by": "agentflow_jax",
    }

  async def _complete(self, body: bytes) -> api_connection.Answer:
    asked = chat_request.read(body, self._defaults)
    if asked.model != self._model:
      raise api_connection.ApiError(
        404,
        f"there is no model {asked.model[:100]!r}; this is {self._model!r}",
        "model_not_found",
      )
    if self._open >= self._max_open:
      raise api_connection.ApiError(
        429, f"{self._open} requests are under way", "rate_limit_exceeded"
      )
    self._open += 1
    try:
      completion = await self._generate(asked)
    finally:
      self._open -= 1
    self._answered += 1
    if asked.stream:
      return _events(_chunks(self._model, asked, completion))
    return _json(_whole(self._model, completion))

  async def _generate(
    self, asked: chat_request.ChatRequest
  ) -> engine_lib.Completion:
    try:
      return await self._engine.generate(
        asked.messages, asked.sampling, _context(asked)
      )
    except errors.PromptTooLongError as error:
      # In the words clients look for (engines/remote.py among them).
      raise api_connection.ApiError(
        400,
        f"This model's maximum context length is {error.limit_tokens} prompt "
        f"tokens. However, your messages have {error.prompt_tokens} tokens.",
        "context_length_exceeded",
      ) from error
    except errors.CheckpointError as error:  # the template refuses the chat
      raise api_connection.ApiError(400, str(error)) from error
    except errors.InfrastructureError as error:
      raise api_connection.ApiError(503, str(error)) from error


def _context(asked: chat_request.ChatRequest) -> engine_lib.CallContext:
  """Seeds the answer; a chat's later requests begin as its first did."""
  begun = hashlib.blake2b(digest_size=16)
  for message in asked.messages:
    begun.update(repr((message.role, message.content)).encode())
    if message.role == "user":
      break
  return engine_lib.CallContext(
    role=messages_lib.ModuleRole.POLICY,
    seed=secrets.randbits(63) if asked.seed is None else asked.seed,
    stream=_STREAM,
    task_id=begun.hexdigest(),
  )


def _head(model: str, kind: str) -> dict[str, Any]:
  return {
    "id": f"chatcmpl-{secrets.token_hex(12)}",
    "object": kind,
    "created": int(time.time()),
    "model": model,
  }


def _usage(completion: engine_lib.Completion) -> dict[str, int]:
  prompt = len(completion.prompt_token_ids)
  drawn = len(completion.token_ids)
  return {
    "prompt_tokens": prompt,
    "completion_tokens": drawn,
    "total_tokens": prompt + drawn,
  }


def _whole(model: str, completion: engine_lib.Completion) -> dict[str, Any]:
  choice = {
    "index": 0,
    "message": {"role": "assistant", "content": completion.text},
    "logprobs": None,
    "finish_reason": str(completion.finish_reason),
  }
  return {
    **_head(model, "chat.completion"),
    "choices": [choice],
    "usage": _usage(completion),
  }


def _chunks(
  model: str,
  asked: chat_request.ChatRequest,
  completion: engine_lib.Completion,
) -> Iterable[Mapping[str, Any]]:
  head = _head(model, "chat.completion.chunk")
  choice = {"index": 0, "logprobs": None}
  said = {"role": "assistant", "content": completion.text}
  yield {**head, "choices": [{**choice, "delta": said, "finish_reason": None}]}
  reason = str(completion.finish_reason)
  yield {**head, "choices": [{**choice, "delta": {}, "finish_reason": reason}]}
  if asked.stream_usage:
    yield {**head, "choices": [], "usage": _usage(completion)}


def _json(value: Any) -> api_connection.Answer:
  return api_connection.Answer(body=json.dumps(value).encode())


def _events(chunks: Iterable[Mapping[str, Any]]) -> api_connection.Answer:
  lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
  return api_connection.Answer(
    body="".join([*lines, "data: [DONE]\n\n"]).encode(),
    kind="text/event-stream",
    headers={"cache-control": "no-cache"},
  )


@contextlib.asynccontextmanager
async def open_engine(
  config: config_lib.Config, checkpoint: str | os.PathLike, name: str
) -> AsyncIterator[local.LocalEngine]:
  """The engine of a checkpoint, compiled; closed when the block ends.

  Args:
    config: validated; its sections sampler, mesh and model count.
    checkpoint: as in `model_loading.load_model`.
    name: of the engine, in its errors.

  Raises:
    CheckpointError: no model is there.
    ConfigError: the config does not fit the model or the devices.
  """
  tensor = config.mesh.tensor
  # One replica, as for the solver.
  mesh = sharding.make_mesh(
    1, 1, tensor, devices=jax.local_devices()[: max(1, tensor)]
  )
  model = model_loading.load_model(
    checkpoint,
    mesh=mesh,
    dtype=config.model.dtype,
    param_dtype=config.model.param_dtype,
  )
  sampler = samplers.build_sampler(config, model, mesh)
  try:
    sampler.warm_up()
    yield local.LocalEngine(sampler, model.tokenizer, name)
  finally:
    await sampler.close()
