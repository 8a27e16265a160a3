"""RemoteEngine: a model behind an API that speaks OpenAI's chat completions.

Flow: messages -> one request with what the provider's row allows -> bytes ->
checked answer -> Completion without token ids, which can not be trained.
What fails is a named error: RateLimitedError, RequestRefusedError,
PromptTooLongError, or EngineError for a host that is down or talks nonsense.
A wrong key or model name is the user's mistake, a UserError, until the first
answer has shown that they are right.

Does not retry, wait, limit or cache; the other files of this package do. The
key is read from the environment once and is in no message of ours.
"""

import email.utils
import importlib
import math
import os
import re
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow_jax.core import continuing, errors, providers, redaction
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import http_answers, structured

_CONNECT_S = 10.0
_MAX_ERROR_CHARS = 300
# Hosts without keys still get a header; the SDK insists on one.
_NO_KEY = "none"
_TOO_LONG_CODE = "context_length_exceeded"
_TOO_LONG = re.compile(r"maximum context length|context window", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,9}")
_MAX_STOPS = 4
# Sampling parameters the SDK does not know by name.
_EXTRA = ("top_k", "min_p")
_COUNTERS = (
  "requests",
  "prompt_tokens",
  "completion_tokens",
  "cost",
  "rate_limited",
  "refused",
  "failed",
  "unstructured",
)


class RemoteEngine:
  """Implements core `Engine` over HTTP; close it when done.

  Example:
    engine = RemoteEngine(providers.remote_model("openai:gpt-4o-mini"))
    completion = await engine.generate(messages, SamplingParams(), context)
  """

  def __init__(
    self,
    model: providers.RemoteModel,
    *,
    base_url: str = "",
    structured_outputs: bool = True,
    stream: bool = False,
    input_price: float = 0.0,
    output_price: float = 0.0,
  ):
    """
    Args:
      model: whom to ask.
      base_url: where; "" is the provider's own address.
      structured_outputs: bind answers to a schema where the provider can.
      stream: let the answer come piece by piece.
      input_price: per million prompt tokens, for the "cost" counter.
      output_price: per million completion tokens.

    Raises:
      UserError: the key, the address or the openai package is missing.
    """
    self.model = model
    self.base_url = base_url or _base_url(model)
    self._structured = structured_outputs and model.provider.structured
    self._stream = stream
    self._prices = (input_price / 1e6, output_price / 1e6)
    self._counts: dict[str, float] = dict.fromkeys(_COUNTERS, 0.0)
    self._answered = False
    key = _key(model)
    self._hide = redaction.Redactor([key])
    self._openai, self._http = _sdk()
    self._client = self._openai.AsyncOpenAI(
      api_key=key,
      base_url=self.base_url,
      max_retries=0,
      # Callers have deadlines; only a dead host is noticed here.
      timeout=self._openai.Timeout(None, connect=_CONNECT_S),
    )

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """Requests, tokens, cost, and failures by kind."""
    counts = dict(self._counts)
    if reset:
      self._counts = dict.fromkeys(_COUNTERS, 0.0)
    return counts

  async def aclose(self) -> None:
    """Closes the connections. Idempotent."""
    await self._client.close()

  def request(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> dict[str, Any]:
    """The body of the HTTP request, all that an answer depends on."""
    provider = self.model.provider
    request: dict[str, Any] = {
      "model": self.model.model,
      "messages": [
        {"role": _api_role(message), "content": message.content}
        for message in messages
      ],
      provider.max_tokens_name: sampling.max_tokens,
    }
    request |= {
      name: value
      for name, value in _sampling(sampling, context).items()
      if name in provider.parameters
    }
    if self._structured and (bound := structured.response_format(context.role)):
      request["response_format"] = bound
      told = structured.instruction(context.role)
      request["messages"].append({"role": "system", "content": told})
    if self._stream:
      request |= {"stream": True, "stream_options": {"include_usage": True}}
    return request

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """One request.

    Raises:
      EngineError: no answer; RateLimitedError and RequestRefusedError say why.
      PromptTooLongError: the API says so.
      UserError: key or model are refused, before the first answer.
    """
    request = self.request(messages, sampling, context)
    self._counts["requests"] += 1
    try:
      answer = await self._ask(request)
      if "response_format" in request:
        self._check(answer, context.role)
    except errors.RateLimitedError:
      self._counts["rate_limited"] += 1
      raise
    except errors.RequestRefusedError:
      self._counts["refused"] += 1
      raise
    except errors.EngineError:
      self._counts["failed"] += 1
      raise
    self._answered = True
    self._counts["prompt_tokens"] += answer.prompt_tokens
    self._counts["completion_tokens"] += answer.completion_tokens
    self._counts["cost"] += (
      answer.prompt_tokens * self._prices[0]
      + answer.completion_tokens * self._prices[1]
    )
    return engine_lib.Completion(
      text=answer.text, finish_reason=answer.finish_reason
    )

  async def _ask(self, request: Mapping[str, Any]) -> http_answers.Answer:
    extra = {name: request[name] for name in _EXTRA if name in request}
    known = {name: v for name, v in request.items() if name not in extra}
    create = self._client.chat.completions.with_streaming_response.create
    try:
      async with create(**known, extra_body=extra or None) as response:
        body = await http_answers.read_bounded(response.iter_bytes())
    # `from None`: the SDK's exceptions carry the request and its headers.
    except self._openai.APIStatusError as error:
      raise self._refusal(error) from None
    except (self._openai.APIConnectionError, self._http.HTTPError) as error:
      raise errors.EngineError(
        f"{self.model} at {self.base_url}: {type(error).__name__}"
      ) from None
    except errors.EngineError as error:
      raise type(error)(f"{self.model}: {error}") from None
    read = http_answers.from_events if self._stream else http_answers.from_body
    try:
      return read(body)
    except errors.EngineError as error:
      raise type(error)(f"{self.model}: {error}") from None

  def _check(
    self, answer: http_answers.Answer, role: messages_lib.ModuleRole
  ) -> None:
    """An answer that was cut at max_tokens is the model's; any other fits."""
    if answer.finish_reason == engine_lib.FinishReason.LENGTH:
      return
    if problem := structured.problem(role, answer.text):
      self._counts["unstructured"] += 1
      raise errors.EngineError(
        f"{self.model} does not keep to the schema ({problem}); "
        f"engines.{role}_options.structured=false asks for free text"
      )

  def _refusal(self, error: Any) -> Exception:
    """What a status other than 200 means."""
    message = self._hide(" ".join(str(error).split()))[:_MAX_ERROR_CHARS]
    message = f"{self.model}: {message}"
    status = error.status_code
    if status == 429:
      return errors.RateLimitedError(
        message, retry_after_s=retry_after_s(error.response.headers)
      )
    if status in (408, 409) or status >= 500:
      return errors.EngineError(
        message, retry_after_s=retry_after_s(error.response.headers)
      )
    too_long = _TOO_LONG.search(message)
    if status in (400, 413, 422) and (too_long or error.code == _TOO_LONG_CODE):
      # "maximum context length is LIMIT tokens, however you requested TOKENS"
      said = message[too_long.start() :] if too_long else ""
      numbers = [*map(int, _NUMBER.findall(said)), 0, 0]
      return errors.PromptTooLongError(numbers[1], numbers[0])
    if status in (401, 403, 404) and not self._answered:
      return errors.UserError(
        f"{message}; check the model's name and "
        f"{self.model.provider.key_variable}"
      )
    return errors.RequestRefusedError(message)


def retry_after_s(headers: Mapping[str, str]) -> float:
  """Seconds a response asks to wait; 0 if it does not, or unreadably.

  Example: `retry_after_s({"retry-after": "1.5"})` is 1.5.
  """
  for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
    text = headers.get(name, "")
    try:
      seconds = float(text) * scale
    except ValueError:
      try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp()
        seconds -= time.time()
      except (ValueError, TypeError):
        continue
    if math.isfinite(seconds):
      return max(0.0, seconds)
  return 0.0


def _api_role(message: messages_lib.Message) -> str:
  """APIs know three roles: what is put into an answer comes from the user."""
  if message.role == continuing.OBSERVATION:
    return "user"
  return message.role


def _sampling(
  sampling: engine_lib.SamplingParams, context: engine_lib.CallContext
) -> dict[str, Any]:
  """Parameters that differ from an API's defaults, under its names."""
  found: dict[str, Any] = {"temperature": sampling.temperature}
  if sampling.top_p < 1:
    found["top_p"] = sampling.top_p
  if sampling.top_k > 0:
    found["top_k"] = sampling.top_k
  if sampling.min_p > 0:
    found["min_p"] = sampling.min_p
  if sampling.stop:
    # OpenAI refuses more; who asks for stop strings reads past them as well.
    found["stop"] = list(sampling.stop[:_MAX_STOPS])
  if sampling.temperature > 0:
    # Members of a group differ, a repeated run does not; 31 bits suit all.
    found["seed"] = context.key_words()[0] >> 1
  return found


def _base_url(model: providers.RemoteModel) -> str:
  provider = model.provider
  if provider.base_url_variable:
    url = os.environ.get(provider.base_url_variable, "").rstrip("/")
    if url:
      return url + provider.base_url_path
  if not provider.base_url:
    raise errors.UserError(
      f"{model} needs an address: set engines.ROLE_options.base_url or the "
      f"environment variable {provider.base_url_variable}"
    )
  return provider.base_url


def _key(model: providers.RemoteModel) -> str:
  provider = model.provider
  key = os.environ.get(provider.key_variable, "").strip()
  if not key and provider.needs_key:
    raise errors.UserError(
      f"{model} needs the environment variable {provider.key_variable}"
    )
  return key or _NO_KEY


def _sdk() -> tuple[types.ModuleType, types.ModuleType]:
  """The openai package and the HTTP package it is built on.

  Imported late: it takes a second that most runs do not need.
  """
  try:
    import openai
  except ImportError as error:
    raise errors.UserError(
      "PROVIDER:MODEL engines need openai: pip install openai"
    ) from error
  base = openai.DefaultAsyncHttpxClient.__mro__[1]
  return openai, importlib.import_module(base.__module__.partition(".")[0])
