"""CachedEngine and its store: what the key holds, and what is kept."""

import asyncio
import contextlib
import dataclasses
import json
import multiprocessing
import sqlite3

import api_process
import pytest

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors, providers
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.engines import answer_store, cached, remote

_ROLE = messages_lib.ModuleRole
SAMPLING = engine_lib.SamplingParams(temperature=0.0, max_tokens=9)
MESSAGES = (messages_lib.Message("user", "hi"),)
CONTEXT = engine_lib.CallContext(role=_ROLE.VERIFIER)


@pytest.fixture(scope="module")
def api():
  with api_process.serve() as running:
    yield running


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)
  monkeypatch.setenv("VLLM_API_KEY", api_process.KEY)


def _ask(api, path, calls, name="compatible:echo", **options):
  """The answers to `calls`, the cache's hits, and requests on the wire."""

  async def main():
    with contextlib.closing(answer_store.AnswerStore(path)) as store:
      engine = remote.RemoteEngine(
        providers.remote_model(name), base_url=api.base_url, **options
      )
      async with contextlib.aclosing(engine):
        caching = cached.CachedEngine(engine, store)
        answers = [await caching.generate(*call) for call in calls]
        return answers, caching.metrics(reset=True)["cache_hits"]

  return asyncio.run(main())


def test_the_same_request_is_asked_once_even_after_a_restart(api, tmp_path):
  path = tmp_path / "a" / "answers.sqlite"
  before = api.stats()["requests"].get("echo", 0)
  (first, second), hits = _ask(api, path, [(MESSAGES, SAMPLING, CONTEXT)] * 2)
  assert (first, hits) == (second, 1)
  (third,), hits = _ask(api, path, [(MESSAGES, SAMPLING, CONTEXT)])
  assert (third, hits) == (first, 1)
  assert api.stats()["requests"]["echo"] - before == 1


_WARM = dataclasses.replace(SAMPLING, temperature=0.5)
_OTHER = {
  "message": ((messages_lib.Message("user", "ho"),), SAMPLING, CONTEXT),
  "max_tokens": (
    MESSAGES,
    dataclasses.replace(SAMPLING, max_tokens=8),
    CONTEXT,
  ),
  "top_p": (MESSAGES, dataclasses.replace(SAMPLING, top_p=0.5), CONTEXT),
  "stop": (MESSAGES, dataclasses.replace(SAMPLING, stop=("x",)), CONTEXT),
  "temperature": (MESSAGES, _WARM, CONTEXT),
  "draw": (MESSAGES, _WARM, dataclasses.replace(CONTEXT, member=1)),
  "schema": (
    MESSAGES,
    SAMPLING,
    dataclasses.replace(CONTEXT, role=_ROLE.EXECUTOR),
  ),
}


def test_the_key_is_the_whole_request(tmp_path):
  with api_process.serve() as api:
    path = tmp_path / "answers.sqlite"
    calls = [
      (MESSAGES, SAMPLING, CONTEXT),
      *_OTHER.values(),
    ]
    _, hits = _ask(api, path, [*calls, *calls])
    assert hits == len(calls)
    for options in (
      {"name": "compatible:echo2"},
      {"name": "vllm:echo"},
      {"structured_outputs": False},
    ):
      assert _ask(api, path, calls[:1], **options)[1] == 0
      assert _ask(api, path, calls[:1], **options)[1] == 1
    # A greedy answer is anybody's.
    member = dataclasses.replace(CONTEXT, member=5, turn=2)
    assert _ask(api, path, [(MESSAGES, SAMPLING, member)])[1] == 1


def test_failures_are_not_kept(api, tmp_path):
  path = tmp_path / "answers.sqlite"
  name = "compatible:down-1"
  call = (MESSAGES, SAMPLING, CONTEXT)
  with pytest.raises(errors.EngineError):
    _ask(api, path, [call], name)
  assert _ask(api, path, [call], name)[1] == 0
  assert _ask(api, path, [call], name)[1] == 1


def test_a_secret_is_not_kept(tmp_path):
  path = tmp_path / "answers.sqlite"
  with contextlib.closing(answer_store.AnswerStore(path)) as store:
    store.put(b"k", {"text": f"the key is {api_process.KEY}"})
    store.put(b"l", {"text": "fine"})
    assert store.get(b"k") is None
    assert (store.withheld, len(store)) == (1, 1)
  for file in tmp_path.iterdir():
    assert api_process.KEY.encode() not in file.read_bytes()


@pytest.mark.parametrize(
  "value",
  [{"text": "\ud800 \x00 é\u2028"}, {"n": [1, 2.5, None, True]}, "x" * 10**6],
)
def test_values_come_back(tmp_path, value):
  with contextlib.closing(
    answer_store.AnswerStore(tmp_path / "a.sqlite")
  ) as store:
    store.put(b"k", "old")
    store.put(b"k", value)
    assert store.get(b"k") == value
    assert store.get(b"other") is None


def test_keys_do_not_depend_on_order_but_on_everything_else():
  assert answer_store.key_of({"a": 1, "b": "\ud800"}) == answer_store.key_of(
    {"b": "\ud800", "a": 1}
  )
  different = [{"a": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {"b": 1}, {}]
  assert len({answer_store.key_of(v) for v in different}) == len(different)


def _write(path, start):
  store = answer_store.AnswerStore(path)
  for i in range(start, start + 100):
    store.put(f"k{i}".encode(), i)
  store.close()


def test_processes_share_a_file(tmp_path):
  path = tmp_path / "a.sqlite"
  context = multiprocessing.get_context("spawn")
  writers = [
    context.Process(target=_write, args=(path, 100 * i)) for i in range(2)
  ]
  for writer in writers:
    writer.start()
  for writer in writers:
    writer.join(60)
    assert writer.exitcode == 0
  with contextlib.closing(answer_store.AnswerStore(path)) as store:
    assert [store.get(f"k{i}".encode()) for i in range(200)] == list(range(200))


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 100])
def test_what_can_not_be_read_is_a_users_error(tmp_path, content):
  path = tmp_path / "a.sqlite"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.UserError, match=r"a\.sqlite"):
    answer_store.AnswerStore(path, read_only=True)


def test_the_file_is_plain_json_in_sqlite(tmp_path):
  path = tmp_path / "a.sqlite"
  with contextlib.closing(answer_store.AnswerStore(path)) as store:
    store.put(b"k", {"a": 1})
  with contextlib.closing(sqlite3.connect(path)) as database:
    ((value,),) = database.execute("SELECT value FROM answers").fetchall()
  assert json.loads(value) == {"a": 1}
