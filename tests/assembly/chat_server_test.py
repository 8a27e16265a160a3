"""The chat completions server: answers, refusals, and clients that leave."""

import asyncio
import contextlib
import json
import socket

import pytest
import served

from agentflow_jax.assembly import api_connection
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors, providers
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import remote
from agentflow_jax.testing import byte_tokenizer, scripted_engine

_ASK = {"model": served.NAME, "messages": [{"role": "user", "content": "Hi"}]}
_CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.PLANNER)


class _Slow:
  """Answers once `release` is set; knows who waits and who left."""

  def __init__(self):
    self.waiting = self.left = 0
    self.release = asyncio.Event()

  async def generate(self, messages, sampling, context):
    self.waiting += 1
    try:
      await self.release.wait()
    except asyncio.CancelledError:
      self.left += 1
      raise
    finally:
      self.waiting -= 1
    return engine_lib.Completion(
      text="late", finish_reason=engine_lib.FinishReason.STOP
    )


def _echo(limit=0):
  """Says what it was asked, with the tokens of bytes."""
  return scripted_engine.FakePolicyEngine(
    byte_tokenizer.ByteTokenizer(),
    lambda text, context: f"{context.seed % 10}:{text}",
    max_prompt_tokens=limit,
  )


@contextlib.asynccontextmanager
async def _opened(engine):
  yield engine


def _post(path="/v1/chat/completions", token=served.TOKEN, body=None, **more):
  data = json.dumps(_ASK | more).encode() if body is None else body
  return (
    f"POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    f"authorization: Bearer {token}\r\ncontent-length: {len(data)}\r\n\r\n"
  ).encode() + data


def _get(path, token=served.TOKEN):
  return (
    f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    f"authorization: Bearer {token}\r\n\r\n"
  ).encode()


async def _raw(port, data):
  reader, writer = await asyncio.open_connection("127.0.0.1", port)
  writer.write(data)
  answer = (await asyncio.wait_for(reader.read(), 30)).decode()
  writer.close()
  head, _, body = answer.partition("\r\n\r\n")
  return int(head.split()[1]), head.lower(), body


@pytest.fixture(scope="module")
def port():
  pytest.importorskip("httptools")
  with served.serving(_opened(_echo(limit=300)), max_tokens=64) as port:
    yield port


def _ask(port, data):
  return asyncio.run(_raw(port, data))


def test_an_answer_has_the_shape_of_openai(port):
  status, head, body = _ask(port, _post(seed=7, max_tokens=3))
  assert status == 200
  assert "content-type: application/json" in head
  answer = json.loads(body)
  assert answer["object"] == "chat.completion"
  assert answer["model"] == served.NAME
  (choice,) = answer["choices"]
  assert choice["message"] == {"role": "assistant", "content": "7:H"}
  assert choice["finish_reason"] == "length"
  usage = answer["usage"]
  assert usage["completion_tokens"] == 3
  assert usage["prompt_tokens"] > 2
  assert usage["total_tokens"] == usage["prompt_tokens"] + 3
  whole = json.loads(_ask(port, _post(seed=7, stop="i"))[2])["choices"][0]
  assert (whole["message"]["content"], whole["finish_reason"]) == (
    "7:H",
    "stop",
  )


def test_a_stream_is_chunks_and_done(port):
  more = {"stream": True, "stream_options": {"include_usage": True}}
  status, head, body = _ask(port, _post(seed=7, **more))
  assert status == 200
  assert "content-type: text/event-stream" in head
  *events, done = [e.removeprefix("data: ") for e in body.split("\n\n") if e]
  assert done == "[DONE]"
  first, last, usage = map(json.loads, events)
  assert first["choices"][0]["delta"]["content"] == "7:Hi"
  assert first["choices"][0]["finish_reason"] is None
  assert last["choices"][0]["finish_reason"] == "stop"
  assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 5
  assert {e["id"] for e in (first, last, usage)} == {first["id"]}
  assert "usage" not in _ask(port, _post(stream=True))[2]


def test_models_and_health(port):
  status, _, body = _ask(port, _get("/v1/models"))
  assert status == 200
  assert [m["id"] for m in json.loads(body)["data"]] == [served.NAME]
  assert served.health(port)["open"] == 0
  assert served.health(port)["model"] == served.NAME


@pytest.mark.parametrize(
  ("data", "status", "code"),
  [
    (_post(token="wrong"), 401, "invalid_api_key"),
    (_post(token="\u00e9"), 401, "invalid_api_key"),
    (_get("/v1/models", token=""), 401, "invalid_api_key"),
    (_post(model="gpt"), 404, "model_not_found"),
    (_post("/v1/completions"), 404, None),
    (_get("/v1/chat/completions"), 405, None),
    (_post(n=2), 400, None),
    (_post(body=b"{"), 400, None),
    (b"garbage\r\n\r\n", 400, None),
    (
      _post(messages=[{"role": "user", "content": "x" * 400}]),
      400,
      "context_length_exceeded",
    ),
    (_post(body=b"x" * (2 << 20)), 413, None),
  ],
)
def test_statuses(port, data, status, code):
  got, _, body = _ask(port, data)
  assert got == status
  error = json.loads(body)["error"]
  assert error["code"] == code
  assert error["message"] and error["type"] == "invalid_request_error"
  assert served.TOKEN not in body


@pytest.mark.parametrize("stream", [False, True])
def test_our_client_understands_it(port, monkeypatch, stream):
  monkeypatch.setenv("VLLM_API_KEY", served.TOKEN)
  model = providers.RemoteModel(providers.PROVIDERS["vllm"], served.NAME)
  sampling = engine_lib.SamplingParams(max_tokens=30, stop=("!",))

  async def main():
    engine = remote.RemoteEngine(
      model,
      base_url=f"http://127.0.0.1:{port}/v1",
      structured_outputs=False,
      stream=stream,
    )
    async with contextlib.aclosing(engine):
      asked = [messages_lib.Message("user", "\u00e9 yes! no")]
      answer = await engine.generate(asked, sampling, _CONTEXT)
      long = [messages_lib.Message("user", "x" * 400)]
      with pytest.raises(errors.PromptTooLongError) as caught:
        await engine.generate(long, sampling, _CONTEXT)
      return answer, caught.value, engine.metrics()

  answer, error, counts = asyncio.run(main())
  assert answer.text.partition(":")[2] == "\u00e9 yes"
  assert answer.finish_reason == engine_lib.FinishReason.STOP
  assert error.limit_tokens == 300
  assert error.prompt_tokens > 400
  assert counts["completion_tokens"] > 0


def _with_slow(talk, **options):
  """Runs `talk(engine, port)` beside a server over a slow engine."""
  pytest.importorskip("httptools")

  async def main():
    engine, stop = _Slow(), asyncio.Event()
    server = served.server_of(engine, **options)
    with socket.create_server(("127.0.0.1", 0)) as sock:
      task = asyncio.create_task(
        api_connection.serve(server.answer, sock, stop)
      )
      try:
        await asyncio.wait_for(talk(engine, sock.getsockname()[1]), 30)
      finally:
        stop.set()
        await task
    assert engine.waiting == 0

  asyncio.run(main())


async def _until(condition):
  while not condition():
    await asyncio.sleep(0.005)


def test_the_one_too_many_comes_later_and_who_leaves_makes_room(caplog):
  async def talk(engine, port):
    _, first = await asyncio.open_connection("127.0.0.1", port)
    first.write(_post())
    second = asyncio.create_task(_raw(port, _post()))
    await _until(lambda: engine.waiting == 2)
    status, head, body = await _raw(port, _post())
    assert status == 429
    assert "retry-after: 1" in head
    assert json.loads(body)["error"]["type"] == "rate_limit_error"
    first.close()
    await _until(lambda: engine.left == 1)
    third = asyncio.create_task(_raw(port, _post()))
    await _until(lambda: engine.waiting == 2)
    engine.release.set()
    assert [(await task)[0] for task in (second, third)] == [200, 200]
    status, _, body = await _raw(port, _get("/health", token=""))
    assert (json.loads(body)["open"], json.loads(body)["answered"]) == (0, 2)

  _with_slow(talk, max_open=2)
  assert caplog.records == []  # leaving is no failure


def test_a_server_that_ends_leaves_nobody_waiting():
  async def talk(engine, port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    kept.append(writer)
    writer.write(_post())
    await _until(lambda: engine.waiting == 1)

  kept = []  # so that the client does not hang up first
  _with_slow(talk)


def test_a_connection_is_kept_and_its_answers_come_in_order():
  pytest.importorskip("httptools")

  class Hastening:
    async def generate(self, messages, sampling, context):
      await asyncio.sleep(0.05 * (3 - context.seed))
      text = f"{context.seed}:Hi"
      return engine_lib.Completion(
        text=text, finish_reason=engine_lib.FinishReason.STOP
      )

  data = [
    _post(seed=i).replace(b"connection: close", b"connection: keep-alive")
    for i in range(3)
  ]

  async def main(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join([*data, _post(seed=3)]))
    answer = (await asyncio.wait_for(reader.read(), 30)).decode()
    writer.close()
    return [answer.find(f'"{seed}:Hi"') for seed in range(4)]

  with served.serving(_opened(Hastening())) as port:
    places = asyncio.run(main(port))
  assert places == sorted(places) and places[0] > 0


def test_failures_are_statuses_and_bugs_are_logged(caplog):
  class Broken:
    def __init__(self, error):
      self.error = error

    async def generate(self, messages, sampling, context):
      raise self.error

  for error, status in (
    (errors.EngineError("the sampler is closed"), 503),
    (errors.CheckpointError("the template wants a user"), 400),
    (ZeroDivisionError("secret detail"), 500),
  ):
    with served.serving(_opened(Broken(error))) as port:
      got, _, body = _ask(port, _post())
    assert got == status
    assert ("secret detail" in body) is False
  assert "secret detail" in caplog.text


def test_an_endless_head_is_cut_off(port):
  data = b"GET /health HTTP/1.1\r\n" + b"x: " + b"y" * (1 << 20)

  async def main():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
      writer.write(data)
      await writer.drain()
      assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()

  asyncio.run(main())
  assert served.health(port)["open"] == 0


def test_no_token_answers_everybody():
  with served.serving(_opened(_echo()), token="") as port:
    assert _ask(port, _post(token=""))[0] == 200
