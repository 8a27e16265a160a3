"""RemoteEngine against a real server: what is asked, and what goes wrong."""

import asyncio
import contextlib
import gc
import json
import os
import pathlib
import threading
import time
import traceback

import api_process
import pytest

from agentflow_jax.agent import commands, parsing
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors, providers
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.engines import guards, http_answers, remote, retrying

_ROLE = messages_lib.ModuleRole
_VARIABLE = "COMPATIBLE_API_KEY"


@pytest.fixture(scope="module")
def api():
  with api_process.serve() as running:
    yield running


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv(_VARIABLE, api_process.KEY)


def _engine(api, model, provider="compatible", **options):
  found = providers.remote_model(f"{provider}:{model}")
  assert found
  return remote.RemoteEngine(found, base_url=api.base_url, **options)


def _context(role=_ROLE.GENERATOR, **fields):
  return engine_lib.CallContext(role=role, **fields)


async def _ask(engine, context=None, sampling=None, text="hi"):
  return await engine.generate(
    (messages_lib.Message("system", "s"), messages_lib.Message("user", text)),
    sampling or engine_lib.SamplingParams(temperature=0.0, max_tokens=50),
    context or _context(),
  )


def _run(engine, *others, wrap=None, **kinds):
  """One answer of `engine` (in guards), which is closed afterwards."""

  async def main():
    async with contextlib.aclosing(engine):
      return await asyncio.wait_for(
        _ask(wrap(engine) if wrap else engine, *others, **kinds), 60
      )

  return asyncio.run(main())


def _retrying(engine, retries=2, timeout_s=30.0):
  return retrying.RetryingEngine(engine, retries, timeout_s, first_delay_s=0.0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_and_its_counters(api, stream):
  engine = _engine(
    api, "echo", stream=stream, input_price=2.0, output_price=50.0
  )
  completion = _run(engine, text="Wien: größer? 🜁")
  assert completion == engine_lib.Completion(
    text="echo: Wien: größer? 🜁", finish_reason=engine_lib.FinishReason.STOP
  )
  counts = engine.metrics(reset=True)
  assert counts.pop("cost") == pytest.approx(2e-6 * 1000 + 50e-6 * 10)
  assert {name: n for name, n in counts.items() if n} == {
    "requests": 1,
    "prompt_tokens": 1000,
    "completion_tokens": 10,
  }
  assert not any(engine.metrics().values())


def _body_of(api, engine, sampling, **context):
  _run(engine, _context(**context), sampling, text="what was sent")
  return api.stats()["bodies"][-1]


def test_a_row_says_which_parameters_are_sent(api, monkeypatch):
  sampling = engine_lib.SamplingParams(
    temperature=0.5, top_k=7, top_p=0.9, min_p=0.1, max_tokens=33, stop=("x",)
  )
  for row in providers.PROVIDERS.values():
    monkeypatch.setenv(row.key_variable, api_process.KEY)
    engine = _engine(api, "echo", row.name)
    body = _body_of(api, engine, sampling)
    assert set(body) - {"model", "messages"} == (
      set(row.parameters) | {row.max_tokens_name}
    )
    assert body[row.max_tokens_name] == 33
    values = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1}
    for name in row.parameters:
      if name in values:
        assert body[name] == values[name]
    if "stop" in row.parameters:
      assert body["stop"] == ["x"]


def test_seeds_tell_draws_apart_and_greedy_needs_none(api):
  drawn = engine_lib.SamplingParams(temperature=1.0)
  seeds = [
    _body_of(api, _engine(api, "echo"), drawn, member=member)["seed"]
    for member in (0, 1, 0)
  ]
  assert seeds[0] == seeds[2] != seeds[1]
  greedy = engine_lib.SamplingParams(temperature=0.0)
  assert "seed" not in _body_of(api, _engine(api, "echo"), greedy)


SPEC = tool_lib.ToolSpec(
  name="Wikipedia_Search_Tool", description="", inputs={}, output=""
)


@pytest.mark.parametrize("stream", [False, True])
def test_bound_answers_are_read_by_the_parsers(api, stream):
  texts = {
    role: _run(_engine(api, "echo", stream=stream), _context(role)).text
    for role in (_ROLE.PLANNER, _ROLE.EXECUTOR, _ROLE.VERIFIER)
  }
  decision = parsing.parse_decision(texts[_ROLE.PLANNER], [SPEC])
  assert decision.tool_name == SPEC.name
  assert commands.parse_command(texts[_ROLE.EXECUTOR]) == [
    {"query": "Laos capital"}
  ]
  verdict = parsing.parse_verdict(texts[_ROLE.VERIFIER])
  assert (verdict.stop, verdict.parsed) == (True, True)


def test_answers_are_free_where_a_schema_is_not_offered_or_not_wanted(
  api, monkeypatch
):
  monkeypatch.setenv("DEEPSEEK_API_KEY", api_process.KEY)
  for engine, role in (
    (_engine(api, "echo", structured_outputs=False), _ROLE.PLANNER),
    (_engine(api, "echo", "deepseek"), _ROLE.PLANNER),
    (_engine(api, "echo"), _ROLE.GENERATOR),
    (_engine(api, "echo"), _ROLE.TOOL),
  ):
    assert _run(engine, _context(role)).text == "echo: hi"
    assert "response_format" not in api.stats()["bodies"][-1]


@pytest.mark.parametrize("model", ["busy-2", "down-2"])
def test_a_host_that_recovers_is_waited_for(api, model):
  engine = _engine(api, model)
  started_s = time.monotonic()
  completion = _run(engine, wrap=_retrying)
  assert completion.text == "echo: hi"
  # Retry-After is 0.05 s, twice, though the back-off is 0.
  assert time.monotonic() - started_s >= 0.1
  assert api.stats()["requests"][model] == 3
  kind = "rate_limited" if model == "busy-2" else "failed"
  assert engine.metrics()[kind] == 2


_BROKEN = {
  "busy-999": (errors.RateLimitedError, "later"),
  "status-500": (errors.EngineError, "500"),
  "half": (errors.EngineError, "no JSON"),
  "html": (errors.EngineError, "no JSON"),
  "shape": (errors.EngineError, "choices.0.message.content"),
  "error": (errors.EngineError, "error message"),
  "cut": (errors.EngineError, "cut"),
  "endless": (errors.EngineError, f"longer than {http_answers.MAX_BYTES}"),
  "filter": (errors.RequestRefusedError, "refused to answer"),
  "status-400": (errors.RequestRefusedError, "400"),
  "status-401": (errors.UserError, _VARIABLE),
  "status-404": (errors.UserError, "check the model's name"),
}


@pytest.mark.parametrize("model", _BROKEN)
def test_what_goes_wrong_has_a_name(api, model):
  kind, words = _BROKEN[model]
  engine = _engine(api, model)
  with pytest.raises(kind, match=words) as caught:
    _run(engine)
  assert type(caught.value) is kind
  assert api_process.KEY not in _everything(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_off_answer_is_no_answer(api, stream):
  with pytest.raises(errors.EngineError, match="cut"):
    _run(_engine(api, "cut", stream=stream))


@pytest.mark.parametrize("model", ["half", "status-503", "schema", "error"])
def test_a_bad_answer_is_retried_and_never_passed_on(api, model):
  before = api.stats()["requests"].get(model, 0)
  engine = _engine(api, model)
  with pytest.raises(errors.EngineError, match="after 3 tries"):
    _run(engine, _context(_ROLE.VERIFIER), wrap=_retrying)
  assert api.stats()["requests"][model] - before == 3
  assert engine.metrics()["unstructured"] == (3 if model == "schema" else 0)


@pytest.mark.parametrize("model", ["status-400", "filter", "long"])
def test_a_refusal_is_not_retried(api, model):
  before = api.stats()["requests"].get(model, 0)
  kinds = (errors.RequestRefusedError, errors.PromptTooLongError)
  with pytest.raises(kinds):
    _run(_engine(api, model), wrap=_retrying)
  assert api.stats()["requests"][model] - before == 1


def test_a_prompt_that_is_too_long_says_how_long():
  with (
    api_process.serve() as api,
    pytest.raises(errors.PromptTooLongError) as caught,
  ):
    _run(_engine(api, "long"))
  assert (caught.value.prompt_tokens, caught.value.limit_tokens) == (5000, 4096)


def test_an_answer_cut_at_max_tokens_is_the_models_own(api):
  completion = _run(_engine(api, "short"), _context(_ROLE.VERIFIER))
  assert completion.finish_reason == engine_lib.FinishReason.LENGTH
  assert not parsing.parse_verdict(completion.text).parsed


def test_a_revoked_key_masks_where_a_wrong_one_stops(api):
  async def main():
    engine = _engine(api, "echo")
    async with contextlib.aclosing(engine):
      await _ask(engine)
      engine.model = providers.remote_model("compatible:status-401")
      with pytest.raises(errors.RequestRefusedError):
        await _ask(engine)

  asyncio.run(main())


@pytest.mark.parametrize("model", ["hang", "drip"])
def test_a_host_that_never_ends_is_left_at_the_deadline(api, model):
  engine = _engine(api, model)
  context = _context(deadline=deadline_lib.Deadline.after(0.3))
  started_s = time.monotonic()
  with pytest.raises(errors.DeadlineExceededError):
    _run(engine, context, wrap=lambda e: _retrying(e, 0))
  assert time.monotonic() - started_s < 2


def test_nobody_there(monkeypatch):
  engine = remote.RemoteEngine(
    providers.remote_model("compatible:m"), base_url="http://127.0.0.1:9/v1"
  )
  with pytest.raises(errors.EngineError, match="APIConnectionError"):
    _run(engine)


def _open_fds():
  return len(os.listdir("/proc/self/fd"))


def test_cancelled_calls_leave_nothing_behind(api):
  async def main():
    engine = _engine(api, "hang")
    await _ask_many(engine, 1)
    gc.collect()
    before = _open_fds(), threading.active_count()
    await _ask_many(engine, 64)
    await engine.aclose()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return before

  async def _ask_many(engine, count):
    calls = [asyncio.create_task(_ask(engine)) for _ in range(count)]
    while api.stats()["open"] < count:
      await asyncio.sleep(0.02)
    for call in calls:
      call.cancel()
    assert all(
      isinstance(end, asyncio.CancelledError)
      for end in await asyncio.gather(*calls, return_exceptions=True)
    )

  before = asyncio.run(main())
  gc.collect()
  assert _open_fds() <= before[0]
  assert threading.active_count() <= before[1]
  deadline_s = time.monotonic() + 10
  while api.stats()["open"] and time.monotonic() < deadline_s:
    time.sleep(0.02)
  assert api.stats()["open"] == 0


def test_the_limit_holds_on_the_wire():
  async def main(api):
    engine = _engine(api, "slow")
    limited = guards.ConcurrencyLimit(engine, 4)
    async with contextlib.aclosing(engine):
      await asyncio.gather(*(_ask(limited) for _ in range(16)))

  with api_process.serve() as api:
    asyncio.run(main(api))
    stats = api.stats()
  assert stats["requests"]["slow"] == 16
  assert stats["most"] == 4


@pytest.mark.parametrize(
  ("name", "missing"),
  [
    ("openai:gpt-4o", "OPENAI_API_KEY"),
    ("azure:gpt-4o", "AZURE_OPENAI_ENDPOINT"),
    ("compatible:m", "COMPATIBLE_BASE_URL"),
  ],
)
def test_what_is_missing_is_named(name, missing, monkeypatch):
  monkeypatch.delenv(missing, raising=False)
  with pytest.raises(errors.UserError, match=missing):
    remote.RemoteEngine(providers.remote_model(name))


def test_addresses_come_from_the_table_or_the_environment(monkeypatch):
  monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://me.example/")
  monkeypatch.setenv("AZURE_OPENAI_API_KEY", api_process.KEY)
  monkeypatch.setenv("VLLM_BASE_URL", "http://127.0.0.1:9001/v1")
  addresses = [
    remote.RemoteEngine(providers.remote_model(name)).base_url
    for name in ("azure:gpt-4o", "vllm:m", "ollama:m")
  ]
  assert addresses == [
    "https://me.example/openai/v1",
    "http://127.0.0.1:9001/v1",
    "http://127.0.0.1:11434/v1",
  ]


@pytest.mark.parametrize(
  ("headers", "seconds"),
  [
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ({"retry-after": "soon"}, 0),
    ({"retry-after": "inf"}, 0),
    ({"retry-after": "-3"}, 0),
    ({}, 0),
  ],
)
def test_retry_after(headers, seconds):
  assert remote.retry_after_s(headers) == pytest.approx(seconds)


def _everything(error):
  """The traceback with the exception's and all causes' attributes."""
  texts = traceback.format_exception(error, chain=True)
  while error is not None:
    texts += [repr(error), repr(vars(error))]
    error = error.__cause__
  return "".join(texts)


def test_the_key_is_in_no_log_and_no_argument(api, caplog):
  caplog.set_level("DEBUG")
  for model in ("echo", "status-500", "status-401", "error"):
    with contextlib.suppress(errors.AgentFlowError):
      _run(_engine(api, model), wrap=_retrying)
  assert caplog.records
  assert api_process.KEY not in caplog.text
  me = pathlib.Path("/proc/self/cmdline").read_bytes()
  assert api_process.KEY.encode() not in me
  assert api_process.KEY not in json.dumps(api.stats()["bodies"])
